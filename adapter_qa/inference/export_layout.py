"""Names of the files in the folder of an exported model."""

GRAPH_FILE = "model.onnx"
EXPORT_FILE = "export.json"  # inputs, window options, tokenizer options, source and check of the export
TOKENIZER_FILE = "tokenizer.json"
ANSWER_FILE = "answer.py"
CONFIG_FILE = "config.json"
