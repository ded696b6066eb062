"""The parts of the trainer; `edgekit.training.run` puts them together."""
