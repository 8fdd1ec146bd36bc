"""A saved run, asked: from a folder to answers, one or many, for contexts of any length."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from adapter_qa.arguments import ModelOptions, SquadOptions, answering_options
from adapter_qa.baseconfig import read_base_config, window_limit
from adapter_qa.basemodel import load_model, load_tokenizer, quiet_libraries, weights_fingerprint
from adapter_qa.batching import LongestFirst
from adapter_qa.composition import AdapterModel, build_setup, check_setup
from adapter_qa.errors import UserError, note
from adapter_qa.files import read_json
from adapter_qa.planning import Plan, plan_answering
from adapter_qa.saves import FULL_FILE, find_folder, read_facts, read_setup
from adapter_qa.squad import Question
from adapter_qa.windows import WindowCollator, make_windows
from utils_qa import Answers, SpanCollector, choose_answers, window_spans


class QuestionAnswerer:
    """Answers questions with what a run saved; window and span options are those of the run.

    Args:
        run: a run folder, its `adapters-<task>` folder, or a folder of adapters with a head saved in 2021.
        base_model: folder or hub id of the base model, where it is no longer where the run found it; needed for
            folders that do not name it.
        language_adapter: a saved language adapter to put under the task, or "none" to leave out the one that is there.
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
        language_adapter: str | None = None,
        batch_size: int = 16,
        device: str | None = None,
    ):
        quiet_libraries()
        folder, facts = find_run(Path(run))
        options = _base_options(folder, facts, base_model)
        base_config = read_base_config(options)
        self.plan = None
        if not (folder / FULL_FILE).is_file():
            self.plan = plan_answering("RUN", str(folder), base_config, language_adapter)
            check_answers(self.plan)
            note(self.plan.notes)
        self.options: dict[str, Any] = windows_of(folder, facts, window_limit(base_config))
        self.tokenizer = load_tokenizer(options)
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model: AdapterModel = load_model(options, "qa")
        if self.plan is not None:
            trained_on = facts.get("base_model", {}).get("fingerprint")
            if trained_on is not None and weights_fingerprint(model) != trained_on:
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
        longest_first = LongestFirst(windows.lengths())
        collected = SpanCollector(longest_first.order, self.options["n_best_size"])
        batches = DataLoader(windows, self.batch_size, sampler=longest_first, collate_fn=collator)
        for batch in tqdm(batches, desc="answering", disable=len(batches) == 1):
            on_device = {name: tensor.to(self.device) for name, tensor in batch.items()}
            inputs = {name: on_device[name] for name in self.tokenizer.model_input_names}
            with torch.inference_mode():
                output = self.model(**inputs)
                collected.take(window_spans(on_device, output.start_logits, output.end_logits, **spans_of))
        return choose_answers(
            questions,
            windows,
            collected.spans,
            n_best_size=self.options["n_best_size"],
            version_2=self.options["version_2"],
            null_score_diff_threshold=self.options["null_score_diff_threshold"],
        )


def find_run(run: Path) -> tuple[Path, dict[str, Any]]:
    """The folder that answers, a fully fine-tuned model's or one of adapters, and what its run wrote there of itself.

    Raises:
        UserError: neither is there.
    """
    if (run / FULL_FILE).is_file():
        return run, read_facts(run / FULL_FILE, read_json(run / FULL_FILE))
    folder = find_folder("RUN", str(run))
    return folder, read_setup(folder).facts


def check_answers(plan: Plan) -> None:
    """Refuses a setup that was not trained to answer questions.

    Raises:
        UserError: it is so.
    """
    if plan.takes_up_head:
        return
    assert plan.saved is not None
    head = plan.saved.head
    raise UserError(
        f"{plan.saved.folder}: was not trained to answer questions; it holds "
        + (f"a head of {head.model_class}" if head is not None else "no head")
    )


def windows_of(folder: Path, facts: dict[str, Any], limit: int) -> dict[str, Any]:
    """Window and span options that a run recorded, or the usual ones.

    Raises:
        UserError: the encoder reads no such windows.
    """
    windows = facts.get("windows") or usual_windows(limit)
    if windows["max_seq_length"] > limit:
        raise UserError(f"{folder}: its windows have {windows['max_seq_length']} tokens, the base model reads {limit}")
    return windows


def usual_windows(limit: int) -> dict[str, Any]:
    """Window and span options for folders that do not say theirs: the defaults, within what the encoder reads."""
    length = min(SquadOptions.max_seq_length, limit)
    return answering_options(SquadOptions(max_seq_length=length, doc_stride=min(SquadOptions.doc_stride, length // 3)))


def _base_options(folder: Path, facts: dict[str, Any], base_model: str | None) -> ModelOptions:
    """The base model; a recorded path that begins with a dot is relative to the saved folder.

    Raises:
        UserError: neither the folder nor the user names it.
    """
    recorded = facts.get("base_model", {})
    name = recorded.get("name_or_path")
    if base_model is None and name is None:
        raise UserError(f"{folder}: does not say which base model its adapters stand on; give --model_name_or_path")
    if name is not None and name.startswith("."):
        name = str((folder / name).resolve())
    for kind, other in (("base model", name if base_model is None else None), ("tokenizer", facts.get("tokenizer"))):
        if other is not None and not Path(other).is_dir():
            note([f"{folder}: names {other} as its {kind}; it is fetched from the hub if it is not here already"])
    return ModelOptions(
        model_name_or_path=base_model or str(name),
        model_revision=recorded.get("revision") or "main",
        tokenizer_name=facts.get("tokenizer"),
    )
