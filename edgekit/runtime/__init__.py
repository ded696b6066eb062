"""Runs bundles on a device: NumPy and the bundle's own runtime, nothing else."""
