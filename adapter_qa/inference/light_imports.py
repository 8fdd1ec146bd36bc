"""Load a model for answering in less time: without parts of libraries that it does not use."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# transformers uses them for assisted generation and for the loss of object detection, if they are installed.
UNUSED = ("scipy", "sklearn")


class _NoCompiler(ModuleType):
    """Stand-in for `torch._dynamo` with the two functions that transformers decorates methods with.

    They mark methods for torch.compile, which answering does not use.
    """

    @staticmethod
    def allow_in_graph(function: Any) -> Any:
        """Return the function unchanged."""
        return function

    @staticmethod
    def disable(function: Any = None, *_args: Any, **_kwargs: Any) -> Any:
        """Return the function unchanged, also as a decorator with arguments."""
        return function if function is not None else _NoCompiler.allow_in_graph


@contextmanager
def light_imports() -> Iterator[None]:
    """Import transformers within the block without scipy, sklearn, torch's compiler and its distributed tensors.

    transformers imports what it finds installed, and has no switch for it. In the block, scipy and sklearn cannot be
    found, `torch.distributed` is reported as not available, and a stand-in takes the place of `torch._dynamo`.
    Afterwards all of them can be imported as usual. Nothing happens if transformers is imported already.

    This is for a script that answers and does nothing else: transformers remembers what it did not find.
    """
    if "transformers" in sys.modules:
        yield
        return
    import torch

    is_available: Callable[[], bool] = torch.distributed.is_available
    compiler = _NoCompiler("torch._dynamo")
    spec = importlib.util.find_spec("torch._dynamo")  # without importing it
    compiler.__path__ = spec.submodule_search_locations or [] if spec is not None else []
    hidden = {name: None for name in UNUSED if name not in sys.modules}
    stand_ins: dict[str, ModuleType | None] = {**hidden, "torch._dynamo": compiler}
    sys.modules.update(stand_ins)  # type: ignore[arg-type]  # None: Python raises ImportError
    torch._dynamo = compiler  # noqa: SLF001  # the library reads it from there
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_available
        del torch._dynamo  # noqa: SLF001
        for name in stand_ins:
            del sys.modules[name]
