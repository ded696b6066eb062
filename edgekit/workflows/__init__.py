"""What a long command does, from its options to its result."""
