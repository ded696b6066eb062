"""Training methods that cost nothing on the device: they are gone from the model that is saved."""
