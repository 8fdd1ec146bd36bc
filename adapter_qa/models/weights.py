"""Read weight files safely: safetensors, or a `.bin` of tensors only. No code inside a pickle is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from adapter_qa.core.errors import UserError, error_line, first_names

PRECISIONS = {"float32", "float16", "bfloat16", "float64"}  # in which weights may be stored
TRAINER_STATES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")  # what `Trainer` unpickles


def find_weights(folder: Path, *names: str) -> Path:
    """Return the first of the named files that a folder holds; give the name of the current format first.

    Raises:
        UserError: if the folder holds none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: holds no {' or '.join(names)}; the folder is damaged or incomplete")


def read_weights(path: Path, *, only_weights: bool = True) -> dict[str, torch.Tensor]:
    """Return all weights of a file by name, on the CPU; their values are read from the disk where they are used.

    A `.bin` file in the format before torch 1.6 is read at once.

    Args:
        path: the file.
        only_weights: refuse other values beside the weights, such as the number of an epoch; else leave them out, and
            accept tensors of whole numbers.

    Raises:
        UserError: if the file cannot be read, or holds anything other than weights.
    """
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise _unreadable(path, error) from error
    else:
        tensors = _unpickle_tensors(path, only_tensors=only_weights)
    if only_weights:
        check_precision(str(path), tensors)
    return tensors


def _unpickle_tensors(path: Path, *, only_tensors: bool) -> dict[str, torch.Tensor]:
    state = _unpickle(path)
    values = state if isinstance(state, dict) else {}
    tensors = {
        name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
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
        return list(read_weights(path, only_weights=False))
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def check_precision(source: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that weights are stored as floating-point numbers of at least 16 bits.

    Raises:
        UserError: if a weight has another type; `source` is the file or folder that they are from.
    """
    others = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()} - PRECISIONS)
    if others:
        raise UserError(
            f"{source}: stores weights as {first_names(others)}; give them as float32, float16, bfloat16 or float64"
        )


def check_finite(source: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that no weight is NaN or infinite; on the meta device they have no values.

    Raises:
        UserError: if a weight is NaN or infinite; `source` is the file or folder that they are from.
    """
    # A sum is finite only if all values are, and takes less time than `isfinite` of each.
    broken = [
        name
        for name, weight in weights.items()
        if not weight.is_meta and not weight.sum().isfinite() and not weight.isfinite().all()
    ]
    if broken:
        raise UserError(
            f"{source}: {len(broken)} of {len(weights)} weights are NaN or infinite ({first_names(broken)}); the "
            "training that saved them failed, or the file is damaged"
        )


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
