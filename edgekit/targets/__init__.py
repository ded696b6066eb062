"""Targets: descriptors, dialects, releases of TensorRT."""
