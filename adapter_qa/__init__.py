"""Extractive question answering with language, task and fusion adapters.

Example:
    from adapter_qa import QuestionAnswerer

    answer = QuestionAnswerer("outputs/fusion").ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor_qa import Overrides, QuestionAnswerer

__version__ = "0.2.0"
__all__ = ["Overrides", "QuestionAnswerer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a name from `predictor_qa` when it is first used: it needs torch and transformers, which take seconds."""
    if name in ("Overrides", "QuestionAnswerer"):
        import predictor_qa

        return getattr(predictor_qa, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
