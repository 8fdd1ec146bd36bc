"""Read weight files safely: safetensors, or a `.bin` of tensors only. No code inside a pickle is run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from adapter_qa.core.errors import UserError, error_line

TRAINER_STATES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")  # what `Trainer` unpickles


def weights_file(folder: Path, *names: str) -> Path:
    """Return the first of the named files that a folder holds; give the name of the current format first.

    Raises:
        UserError: if the folder holds none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: holds no {' or '.join(names)}; the folder is damaged or incomplete")


def read_weights(path: Path, *, only_tensors: bool = True) -> dict[str, torch.Tensor]:
    """Return all weights of a file by name, on the CPU; their values are read from the disk where they are used.

    A `.bin` file in the format before torch 1.6 is read at once.

    Args:
        path: the file.
        only_tensors: refuse other values beside the tensors, such as the number of an epoch; else leave them out.

    Raises:
        UserError: if the file cannot be read, or holds anything other than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise _unreadable(path, error) from error
    state = _unpickle(path)
    values = state if isinstance(state, dict) else {}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    if not tensors or (only_tensors and len(tensors) < len(values)):
        names = [str(name) for name in values if name not in tensors]
        found = f" ({', '.join(names[:3])})" if names else ""
        raise UserError(
            f"{path}: holds something other than named tensors{found}; it is damaged, or not a model's state_dict"
        )
    return tensors


def weight_names(path: Path) -> list[str]:
    """Return the names of the weights in a file; of safetensors, from the header; errors as in `read_weights`."""
    if path.suffix != ".safetensors":
        return list(read_weights(path, only_tensors=False))
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def check_states(checkpoint: Path) -> None:
    """Check the state files of a checkpoint before `Trainer` unpickles them; they may come from someone else.

    Raises:
        UserError: if a file holds anything other than tensors, arrays and plain values; nothing in it was run.
    """
    from transformers.trainer import safe_globals  # imports the trainer, which answering questions does not need

    for pattern in TRAINER_STATES:
        for path in sorted(checkpoint.glob(pattern)):
            with safe_globals():  # allows the arrays of NumPy's random state
                _unpickle(path)


def _unpickle(path: Path) -> Any:
    """Read tensors and plain values from a file of `torch.save`, to the CPU."""
    try:
        # Explicit, so that TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD has no effect.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than tensors and plain values, and nothing else is loaded; it may be damaged or "
            "harmful"
        ) from error
    except Exception as error:  # for a damaged file the unpickler raises nearly every type
        reason = error_line(error, 200)
        raise UserError(f"{path}: cannot be read ({reason}); the file is damaged") from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: the weights cannot be read ({error}); the file is damaged")
