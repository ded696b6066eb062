"""Quantization-aware fine-tuning on the calibrated ONNX graph itself."""
