"""Where an inference's time goes, layer by layer; one file a backend."""
