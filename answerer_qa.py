"""A saved run, asked: from a folder to answers, one or many, for contexts of any length."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from adapter_qa.arguments import ModelOptions, quiet_libraries
from adapter_qa.basemodel import load_model, load_tokenizer, read_base_config, weights_fingerprint
from adapter_qa.composition import AdapterModel, build_setup, check_setup
from adapter_qa.errors import UserError
from adapter_qa.planning import plan_saved
from adapter_qa.saves import FULL_FILE, SETUP_FILE, find_folder, read_json
from adapter_qa.squad import Question
from utils_qa import Answers, WindowCollator, WindowSpans, choose_answers, make_windows, window_spans


class QuestionAnswerer:
    """Answers questions with what a run saved; window and span options are those of the run.

    Args:
        run: a run folder or its `adapters-<task>` folder.
        base_model: folder or hub id of the base model, where it is no longer where the run found it.
        batch_size: windows at once.
        device: e.g. "cuda:0"; None takes a GPU if there is one.

    Raises:
        UserError: no such run, a run of another task, or weights that do not fit.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        base_model: str | None = None,
        batch_size: int = 16,
        device: str | None = None,
    ):
        quiet_libraries()
        folder, document = find_run(Path(run))
        facts: dict[str, Any] = document["trainer"]
        if facts["task"] != "qa":
            raise UserError(f"{folder}: was trained for {facts['task']}, not to answer questions")
        options = ModelOptions(
            model_name_or_path=base_model or _base_path(folder, facts),
            model_revision=facts["base_model"]["revision"],
            tokenizer_name=facts["tokenizer"],
        )
        base_config = read_base_config(options)
        self.plan = plan_saved("RUN", str(folder), "qa", base_config) if (folder / SETUP_FILE).is_file() else None
        self.options: dict[str, Any] = facts["windows"]
        self.tokenizer = load_tokenizer(options)
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model: AdapterModel = load_model(options, "qa")
        if self.plan is not None:
            if weights_fingerprint(model) != facts["base_model"]["fingerprint"]:
                print(
                    f"warning: {options.model_name_or_path} is not the base model that {folder} was trained on; "
                    "its answers will not be those of the run",
                    file=sys.stderr,
                )
            build_setup(model, self.plan)
        self.model = model.to(self.device).eval()

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Answers questions; a progress bar shows the windows.

        Args:
            questions: with distinct ids; gold answers are not looked at.
        """
        check_setup(self.model, self.plan)
        spans_of = {name: self.options[name] for name in ("n_best_size", "max_answer_length")}
        windows = make_windows(
            questions,
            self.tokenizer,
            max_seq_length=self.options["max_seq_length"],
            doc_stride=self.options["doc_stride"],
        )
        collator = WindowCollator(int(self.tokenizer.pad_token_id), self.tokenizer.padding_side == "left")
        parts = []
        batches = DataLoader(windows, self.batch_size, collate_fn=collator)
        for batch in tqdm(batches, desc="answering", disable=len(batches) == 1):
            on_device = {name: tensor.to(self.device) for name, tensor in batch.items()}
            inputs = {name: on_device[name] for name in self.tokenizer.model_input_names}
            with torch.inference_mode():
                output = self.model(**inputs)
                spans = window_spans(on_device, output.start_logits, output.end_logits, **spans_of)
            parts.append([tensor.cpu().numpy() for tensor in spans])
        arrays = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        return choose_answers(
            questions,
            windows,
            WindowSpans(*arrays),
            n_best_size=self.options["n_best_size"],
            version_2=self.options["version_2"],
            null_score_diff_threshold=self.options["null_score_diff_threshold"],
        )


def find_run(run: Path) -> tuple[Path, dict[str, Any]]:
    """The folder that answers and its JSON: a fully fine-tuned model's, or an `adapters-<task>` folder.

    Raises:
        UserError: neither is there.
    """
    if (run / FULL_FILE).is_file():
        return run, read_json(run / FULL_FILE)
    folder = find_folder("RUN", str(run))
    document = read_json(folder / SETUP_FILE) if (folder / SETUP_FILE).is_file() else {}
    if "trainer" not in document:
        raise UserError(f"RUN {run}: holds an adapter without a setup; give the folder of a run of run_qa_adapter.py")
    return folder, document


def _base_path(folder: Path, facts: dict[str, Any]) -> str:
    """Where the base model is; a path that begins with a dot is relative to the saved folder."""
    name = str(facts["base_model"]["name_or_path"])
    return str((folder / name).resolve()) if name.startswith(".") else name
