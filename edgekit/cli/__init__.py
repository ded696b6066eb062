"""The ``edgekit`` command, one file a subcommand."""
