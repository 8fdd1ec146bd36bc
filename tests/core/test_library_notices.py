"""Notices of libraries that are silenced for a while (adapter_qa/core/library_notices.py)."""

from __future__ import annotations

import logging
import warnings

from adapter_qa.core.library_notices import NOTICES, silenced_loading, silenced_training

MESSAGES = (
    ("adapters.model_mixin", "There are adapters available but none are activated for the forward pass."),
    ("adapters.model_mixin", "something else"),
    ("transformers.modeling_utils", "Some weights of X were not initialized and are newly initialized: ['qa']"),
    ("transformers.modeling_utils", "something else"),
)
WARNINGS = (
    ("Detected call of `lr_scheduler.step()` before `optimizer.step()`.", UserWarning),
    ("Seems like `optimizer.step()` has been overridden after learning rate scheduler", UserWarning),
    ("`torch.distributed._all_gather_base` is deprecated.", FutureWarning),
    ("something else", FutureWarning),
)


def shown_messages() -> list[bool]:
    """Return which messages the loggers let pass."""
    loggers = [(logging.getLogger(name), message) for name, message in MESSAGES]
    return [
        bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None)))
        for logger, message in loggers
    ]


def shown_warnings() -> list[bool]:
    """Return which warnings the filters let pass."""
    shown = []
    for message, category in WARNINGS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn(message, category, stacklevel=1)
        shown.append(bool(caught))
    return shown


def test_only_two_notices_are_silenced_while_a_model_is_loaded() -> None:
    """Several models may be loaded at once; in the end nothing is silenced."""
    before = {name: list(logging.getLogger(name).filters) for name in NOTICES}
    with silenced_loading():
        with silenced_loading():
            assert shown_messages() == [False, True, False, True]
        assert shown_messages() == [False, True, False, True]
    assert shown_messages() == [True] * 4
    assert {name: logging.getLogger(name).filters for name in NOTICES} == before


def test_warnings_of_a_training_are_silenced_while_it_lasts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with silenced_training():
            assert shown_messages() == [False, True, False, True]
            assert shown_warnings() == [False, False, False, True]
        assert shown_messages() == shown_warnings() == [True] * 4
