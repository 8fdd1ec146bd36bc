"""Time variants of some work, and measure what a device can do."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}  # rows of the square matrices whose product gives a device's rate


def device_name(device: str) -> str:
    """Return the name of the accelerator, or the architecture of the processor."""
    return torch.cuda.get_device_name(0) if device.startswith("cuda") else f"CPU {platform.machine()}"


def median_seconds(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each variant.

    The variants take turns, so that other load on the machine affects all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def speed_rows(title: str, work: float, unit: str, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each variant: its speed, and the ratio to the speed of the first variant.

    Args:
        title: what is measured.
        work: the amount of work of one run.
        unit: unit of the speed, e.g. "windows/s".
        seconds: seconds of one run of each variant.
    """
    baseline = next(iter(seconds.values()))
    return [
        {"what": f"{title}: {name}", "figure": work / value, "unit": unit, "times": f"{baseline / value:.2f} x"}
        for name, value in seconds.items()
    ]


class OperatorCounter(TorchDispatchMode):
    """Counts operators that compute something. On a GPU each starts at least one kernel, which takes time."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and count it unless it only makes a view."""
        aliases = [result.alias_info for result in function._schema.returns]
        self.count += any(alias is None or alias.is_write for alias in aliases)
        return function(*args, **(kwargs or {}))


def matrix_rate(device: str, dtype: torch.dtype, rounds: int = 5) -> float:
    """Return the multiply-adds per second of a large matrix product, the best of several rounds."""
    size = MATRIX_SIZE[device.split(":")[0]]
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 1):  # the first round warms up
        start = time.perf_counter()
        torch.mm(left, right)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return size**3 / best
