"""Weight files, read safely: safetensors, or a `.bin` of tensors and nothing else; nobody's pickle is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from adapter_qa.core.errors import UserError

STATES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")  # what `Trainer` unpickles of a checkpoint


def weights_file(folder: Path, *names: str) -> Path:
    """The first of the named files that a folder holds; the present format's name comes first.

    Raises:
        UserError: it holds none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: holds no {' or '.join(names)}; the folder is damaged or incomplete")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All weights of a file by name, on the CPU.

    A `.bin` is unpickled with `weights_only=True`, which makes tensors and plain containers and refuses the rest.

    Raises:
        UserError: it cannot be read, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: the weights cannot be read ({error}); the file is damaged") from error
    state = _unpickle(path)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: holds other things than tensors by name; the file is damaged")
    return dict(state)


def check_states(checkpoint: Path) -> None:
    """Looks at the states of a checkpoint that is to be resumed, which somebody may have sent.

    Raises:
        UserError: one holds anything but tensors, arrays and plain values; nothing of it was run.
    """
    from transformers.trainer import safe_globals  # loads the trainer, for which those who ask need not wait

    for pattern in STATES:
        for path in sorted(checkpoint.glob(pattern)):
            with safe_globals():  # the arrays of numpy's generator
                _unpickle(path)


def _unpickle(path: Path) -> Any:
    """Tensors and plain values of a file of `torch.save`, on the CPU; nothing else is made.

    Raises:
        UserError: it holds anything else, or is damaged.
    """
    try:
        # Said in so many words, so that no environment variable says otherwise.
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than tensors and plain values, which alone are loaded; it may be damaged or harmful"
        ) from error
    except Exception as error:  # of a damaged file the unpickler raises nearly everything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({reason}); the file is damaged") from error


def weight_names(path: Path) -> list[str]:
    """Names of the weights in a file; of a safetensors file only the header is read.

    Raises:
        UserError: as `read_weights`.
    """
    if path.suffix != ".safetensors":
        return list(read_weights(path))
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: the weights cannot be read ({error}); the file is damaged") from error
