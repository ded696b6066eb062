"""VQ-SA: the network, its backbones, its checkpoints and its deployable form."""
