"""A counter of the places where a computation waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DeviceReadCounter(TorchDispatchMode):
    """Counter of operations that read numbers from the device; on a GPU each one waits for all earlier work.

    Attributes:
        count: such operations since the counter was made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)  # noqa: SLF001
        return function(*args, **(kwargs or {}))
