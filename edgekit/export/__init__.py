"""From a trained model to the float ONNX file that every target starts from."""
