"""Extractive question answering with language, task and fusion adapters.

Example:
    from adapter_qa import QuestionAnswerer, train_qa

    result = train_qa({"model_name_or_path": "base", "do_train": True, "train_file": "train.json", "output_dir": "out"})
    answer = QuestionAnswerer(result.folder).ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapter_qa.api import TrainingResult, train_mlm, train_ner, train_qa
    from adapter_qa.core.errors import Interrupted, ReportedError, RunError, UserError
    from adapter_qa.data.answers import Candidate
    from predictor_qa import Answer, Overrides, QuestionAnswerer

__version__ = "0.2.0"
__all__ = [
    "Answer",
    "Candidate",
    "Interrupted",
    "Overrides",
    "QuestionAnswerer",
    "ReportedError",
    "RunError",
    "TrainingResult",
    "UserError",
    "__version__",
    "train_mlm",
    "train_ner",
    "train_qa",
]
_MODULES = {
    "predictor_qa": ("Answer", "Overrides", "QuestionAnswerer"),
    "adapter_qa.data.answers": ("Candidate",),
    "adapter_qa.api": ("TrainingResult", "train_mlm", "train_ner", "train_qa"),
    "adapter_qa.core.errors": ("Interrupted", "ReportedError", "RunError", "UserError"),
}


def __dir__() -> list[str]:
    """Return all names, for completion; those that are not imported yet too."""
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # for type checkers it would mean that every name exists

    def __getattr__(name: str) -> Any:
        """Import a name when it is first used: `predictor_qa` needs torch and transformers, which take seconds."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
