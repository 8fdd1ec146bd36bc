"""Stop watches and what a device can do, for the benchmarks."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

MATRIX = {"cpu": 1024, "cuda": 8192}  # side of the square matrices whose product tells a device's rate


def device_name(device: str) -> str:
    """The accelerator, or the processor."""
    return torch.cuda.get_device_name(0) if device.startswith("cuda") else f"CPU {platform.machine()}"


def timed(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; they take turns, so that a busy machine is busy for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def as_rows(what: str, work: float, unit: str, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each way: work a second, and how many times the first, plain way."""
    plain = next(iter(seconds.values()))
    return [
        {"what": f"{what}: {name}", "figure": work / value, "unit": unit, "times": f"{plain / value:.2f} x"}
        for name, value in seconds.items()
    ]


class Launches(TorchDispatchMode):
    """Counts the operators that compute something: on a GPU each is a kernel or several, and takes time to start."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [one.alias_info for one in function._schema.returns]
        self.count += any(one is None or one.is_write for one in aliases)  # views are made without the device
        return function(*args, **(kwargs or {}))


def matrix_rate(device: str, dtype: torch.dtype, rounds: int = 5) -> float:
    """Multiply-adds a second of a large square matrix product, the best of some rounds."""
    side = MATRIX[device.split(":")[0]]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 1):  # the first one warms up
        began = time.perf_counter()
        torch.mm(left, right)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return side**3 / best
