"""Weight files, read safely: safetensors, or a `.bin` of tensors and nothing else; nobody's pickle is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from adapter_qa.errors import UserError


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
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: is no file of tensors alone, and nothing else is loaded from a .bin; it may be damaged or harmful"
        ) from error
    except Exception as error:  # of a damaged file the unpickler raises nearly everything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: the weights cannot be read ({reason}); the file is damaged") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: holds other things than tensors by name; the file is damaged")
    return dict(state)


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
