"""An exported model with the call of the question-answering pipeline, without torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapter_qa.core.errors import raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.questions import Question
from adapter_qa.inference.ask_settings import number_problems
from adapter_qa.inference.export_layout import CONFIG_FILE
from adapter_qa.inference.exported_model import ExportedModel
from adapter_qa.inference.pipeline_call import PipelineCall
from adapter_qa.models.encoders import window_limit


class ExportedAnswerer(PipelineCall):
    """A model that `export_qa.py` wrote.

    Args:
        folder: its folder.
        batch_size: windows per forward pass.

    Attributes:
        model: graph, tokenizer and options; answers too, as `answer.py` does.

    Raises:
        UserError: a file of the folder is missing or damaged, or the batch size is not a whole number of at least 1.
    """

    def __init__(self, folder: Path, batch_size: int):
        raise_if_any(number_problems({"batch_size": batch_size}))
        self.model = ExportedModel.load(folder)
        self.pair_tokenizer = self.model.tokenizer
        self.options = self.model.options
        self.batch_size = batch_size
        self._limit = window_limit(read_json(folder / CONFIG_FILE))

    def answer_with(self, questions: Sequence[Question], options: AnsweringOptions, batch_size: int) -> Answers:
        """Answer questions with distinct ids with options of their own."""
        return self.model.answer_with(questions, options, batch_size)

    def _longest_window(self) -> int:
        return self._limit
