"""Everything that reads or rewrites ONNX graphs."""
