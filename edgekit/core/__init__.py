"""The base of everything else: errors, console, files, cache, typed TOML, the host."""
