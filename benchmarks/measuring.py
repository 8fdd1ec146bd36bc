"""Time variants of some work, and measure what a device can do."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig

ROUNDS = 5  # of a matrix product; the best one counts
SQUARE = {"cpu": 2048, "cuda": 8192}  # rows of square matrices whose product reaches a device's rate
BF16_PRODUCTS = "float32 with bfloat16 products"  # on CPUs, of --fp32_products bf16; beside "float32" and "bfloat16"


class MatrixRate(NamedTuple):
    """The rate of a device in matrix products, and where it was reached.

    Attributes:
        multiply_adds: per second.
        arithmetic: "float32", "bfloat16" or `BF16_PRODUCTS`.
        shape: rows, inner size, columns of the product.
        threads: of the CPU.
    """

    multiply_adds: float
    arithmetic: str
    shape: tuple[int, int, int]
    threads: int


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


def matrix_rate(device: str, arithmetic: str, width: int, tokens: int) -> MatrixRate:
    """Return the highest rate over the products of a layer of a width, on batches of so many tokens, and a square one.

    Args:
        device: name of the device.
        arithmetic: "float32", "bfloat16" or `BF16_PRODUCTS`.
        width: of the layer; its feed-forward part is four times as wide.
        tokens: of a batch, padding included.
    """
    square = SQUARE[device.split(":")[0]]
    shapes = [(tokens, width, width), (tokens, width, 4 * width), (tokens, 4 * width, width), (square,) * 3]
    rates = {product_rate(device, arithmetic, shape): shape for shape in shapes}
    best = max(rates)
    return MatrixRate(best, arithmetic, rates[best], torch.get_num_threads())


def bert_config(vocab_size: int, width: int, layers: int) -> BertConfig:
    """Return the config of a BERT with attention heads of 64 and feed-forward blocks of four times the width."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )


def product_rate(device: str, arithmetic: str, shape: tuple[int, int, int]) -> float:
    """Return the multiply-adds per second of a matrix product, the best of several rounds."""
    rows, inner, columns = shape
    dtype = torch.bfloat16 if arithmetic == "bfloat16" else torch.float32
    left, right = torch.randn(rows, inner, device=device), torch.randn(columns, inner, device=device)
    left, right = left.to(dtype), right.to(dtype)
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made at run time
    before = matmul.fp32_precision
    if arithmetic == BF16_PRODUCTS:
        matmul.fp32_precision = "bf16"
    best = float("inf")
    for _ in range(ROUNDS + 1):  # the first round warms up
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    matmul.fp32_precision = before
    return rows * inner * columns / best
