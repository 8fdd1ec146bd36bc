"""Extractive question answering with language, task and fusion adapters.

    from adapter_qa import QuestionAnswerer

    answer = QuestionAnswerer("outputs/fusion").ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor_qa import QuestionAnswerer

__version__ = "0.2.0"
__all__ = ["QuestionAnswerer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `QuestionAnswerer` when it is first used: it needs torch and transformers, which take seconds."""
    if name == "QuestionAnswerer":
        from predictor_qa import QuestionAnswerer

        return QuestionAnswerer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
