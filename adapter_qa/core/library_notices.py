"""Notices of the libraries that are misleading here; each is silenced only while the context lasts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# A filter of a logger, because at level ERROR transformers 4.57 writes a report on tensor parallelism instead.
NOTICES = {
    "adapters.model_mixin": "none are activated",  # while a setup is being built
    "transformers.modeling_utils": "newly initialized",  # the weights of a head, as intended
}


class _Without:
    """A filter of a logger that drops the messages with some words."""

    def __init__(self, words: str):
        self.words = words

    def filter(self, record: logging.LogRecord) -> bool:
        return self.words not in record.getMessage()


@contextmanager
def silenced_loading() -> Iterator[None]:
    """Silence `NOTICES`, which come while a model is loaded and gets its adapters."""
    filters = [(logging.getLogger(name), _Without(words)) for name, words in NOTICES.items()]
    for logger, notice in filters:
        logger.addFilter(notice)
    try:
        yield
    finally:
        for logger, notice in filters:
            logger.removeFilter(notice)


@contextmanager
def silenced_training() -> Iterator[None]:
    """Silence what `silenced_loading` does, and warnings of PyTorch while a model trains; also a decorator.

    Under DeepSpeed a scheduler seems to step before the optimizer, and deprecated names are in every step.
    """
    with silenced_loading(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`")
        warnings.filterwarnings("ignore", r"Seems like `optimizer.step\(\)` has been overridden")
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
        yield
