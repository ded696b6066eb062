"""The parts of the trainer; `edgekit.model.train` puts them together."""
