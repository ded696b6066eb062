"""The former name of `edgekit.runtime.finish_engine`, which scripts in older bundles run."""
