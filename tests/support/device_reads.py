"""A counter of operations that wait for the device."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

DEVICE_READS = ("aten._local_scalar_dense.default", "aten.nonzero.default")


class DeviceReadCounter(TorchDispatchMode):
    """Counter of operations that read numbers from the device; on a GPU each of them waits for all earlier work.

    Attributes:
        count: number of these operations since the counter was created.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(function) in DEVICE_READS
        return function(*args, **(kwargs or {}))
