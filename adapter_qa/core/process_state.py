"""What a run changes in its process: the environment, and settings and state of the libraries."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"  # transformers sets it for a run, and reads it in the next one


class _Settings(NamedTuple):
    """Settings of torch and transformers that runs change for their process; the defaults are those of a new one."""

    deterministic: bool = False
    cudnn_deterministic: bool = False
    cudnn_benchmark: bool = False
    matmul_precision: str = "none"
    cpu_matmul_precision: str = "none"
    verbosity: int = logging.WARNING

    @classmethod
    def read(cls) -> _Settings:
        """Return the present settings. Import nothing: what is not imported has its defaults."""
        if "transformers" not in sys.modules or "torch" not in sys.modules:
            return cls()
        import torch
        from transformers.utils.logging import get_verbosity

        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.fp32_precision,
            torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]  # the stubs lack it
            get_verbosity(),
        )

    def restore(self) -> None:
        """Set what differs now."""
        now = self.read()
        if now == self:
            return
        import torch
        from transformers.utils.logging import set_verbosity

        torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        if now.matmul_precision != self.matmul_precision:  # transformers has set it, by this attribute
            torch.backends.cuda.matmul.allow_tf32 = self.matmul_precision == "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = self.cpu_matmul_precision  # type: ignore[attr-defined]
        set_verbosity(self.verbosity)


class _Generators(NamedTuple):
    """States of the random generators, which a run seeds; None for libraries that are not in use yet."""

    python: Any
    numpy: Any
    torch: Any
    cuda: Any

    @classmethod
    def read(cls) -> _Generators:
        """Return the present states. Import nothing."""
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        return cls(
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
            torch.get_rng_state() if torch is not None else None,
            torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None,
        )

    def restore(self) -> None:
        """Set the states; those of libraries that were not in use become random, as in a new process."""
        random.setstate(self.python)
        if "numpy" in sys.modules:
            import numpy as np

            if self.numpy is None:
                np.random.seed()
            else:
                np.random.set_state(self.numpy)
        if "torch" in sys.modules:
            import torch

            if self.torch is None:
                torch.seed()
            else:
                torch.set_rng_state(self.torch)
            if self.cuda is not None:
                torch.cuda.set_rng_state_all(self.cuda)
            elif torch.cuda.is_initialized():
                torch.cuda.seed_all()


@contextmanager
def restored_process(script: str) -> Iterator[None]:
    """Undo at the end what a run of a script leaves in its process and would change the next one.

    That is the environment, settings of the libraries, the state that accelerate shares among its objects, and the
    random generators.
    """
    environment, argv, settings, generators = dict(os.environ), sys.argv, _Settings.read(), _Generators.read()
    os.environ.pop(MIXED_PRECISION, None)
    sys.argv = [script]  # errors name the script
    try:
        yield
    finally:
        sys.argv = argv
        for name in {*os.environ} - {*environment}:
            del os.environ[name]
        os.environ.update(environment)
        settings.restore()
        generators.restore()
        if "accelerate" in sys.modules:
            from accelerate.state import AcceleratorState, GradientState

            AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - there is no public method
            GradientState._reset_state()  # noqa: SLF001
