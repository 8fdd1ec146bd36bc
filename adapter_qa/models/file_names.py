"""Names of the files in the folder of a base model and in a saved folder, without heavy imports.

Those of `adapter_*` and heads are the library's.
"""

from __future__ import annotations

SETUP_FILE = "adapter_setup.json"
ADAPTER_CONFIG = "adapter_config.json"
FUSION_CONFIG = "adapter_fusion_config.json"
HEAD_CONFIG = "head_config.json"
FULL_FILE = "full_setup.json"  # beside a fully fine-tuned model, instead of adapter_setup.json
# Weights of a base model, in the order of preference; an index names several files.
BASE_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Weights: in the current format, and of adapter-transformers 2.x.
ADAPTER_WEIGHTS = ("adapter.safetensors", "pytorch_adapter.bin")
FUSION_WEIGHTS = ("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin")
HEAD_WEIGHTS = ("model_head.safetensors", "pytorch_model_head.bin")
