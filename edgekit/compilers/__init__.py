"""From INT8 ONNX to the files of a bundle, on a workstation; one module per backend."""
