"""Import torch and transformers in less time, and train and answer without looking for garbage among their objects."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage in the block, and never look again at the objects that it leaves, which live to the end.

    Importing the libraries makes a million objects. Looking for garbage among them takes time while they are made, at
    the start and end of a training, and when the process ends; half a second each time. Nothing happens if transformers
    is imported already.
    """
    if "transformers" in sys.modules:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
