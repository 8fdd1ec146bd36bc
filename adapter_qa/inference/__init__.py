"""Use of a saved model: questions from files, the web page, and the ONNX export."""
