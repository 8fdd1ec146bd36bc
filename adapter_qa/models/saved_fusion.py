"""The fusion in a saved folder: its configuration, and what of it is not used."""

from __future__ import annotations

import re
from pathlib import Path

from adapters import AdapterFusionConfig

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.models.file_names import FUSION_CONFIG, FUSION_WEIGHTS
from adapter_qa.models.weights import find_weights, weight_names

PART = re.compile(r"adapter_fusion_layer\.[^.]+\.(query|key|value)\.")  # of a fusion layer, in the name of a weight


def read_fusion_config(folder: Path) -> AdapterFusionConfig:
    """Return the configuration of a saved fusion.

    The library lowers a temperature from 50 to 1 in the course of the training. It does not save it, and begins with 50
    again when it loads the fusion. Here the temperature is 1.

    Raises:
        UserError: if the file holds no configuration of a fusion, or an invalid dropout.
    """
    path = folder / FUSION_CONFIG
    config = read_json(path).get("config") or {}
    try:
        # adapter-transformers 2.x did not save the dropout. With None, the library uses the encoder's, as 2.x did.
        loaded = AdapterFusionConfig.load({"dropout_prob": None, **config}, temperature=False)
    except Exception as error:  # the values in the file can cause any exception
        raise UserError(f"{path}: holds no configuration of a fusion ({error})") from error
    dropout = loaded.dropout_prob
    if dropout is not None and not (type(dropout) in (int, float) and 0 <= dropout <= 1):
        raise UserError(f"{path}: dropout_prob {dropout!r}; must be a number from 0 to 1, or null for the encoder's")
    return loaded


def fusion_notes(folder: Path) -> list[str]:
    """Return notes on what a saved fusion has and what is not used; errors as in `read_fusion_config`."""
    config, names = read_fusion_config(folder), weight_names(find_weights(folder, *FUSION_WEIGHTS))
    parts = {match[1] for match in map(PART.search, names) if match is not None}
    unused = sorted(part for part in parts if not config[part])
    notes = []
    if unused:
        notes.append(
            f"{folder}: its weights of {' and '.join(unused)} are left out; they are false in its {FUSION_CONFIG}"
        )
    if read_json(folder / FUSION_CONFIG)["config"].get("temperature"):
        notes.append(
            f"{folder}: its temperature is taken as 1, to which it falls in training; the folder does not record it"
        )
    return notes
