"""Anybody's classifiers as sides of a comparison: ONNX, OpenVINO and TFLite files, and programs."""
