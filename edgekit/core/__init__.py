"""What everything else stands on: errors, console, files, cache, typed TOML, the host."""
