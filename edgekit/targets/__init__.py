"""What a target is: descriptors, dialects, releases of TensorRT."""
