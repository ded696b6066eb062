"""The long commands, each from its options to its result."""
