"""A saved run, asked: from a folder to answers, one or many, for contexts of any length.

answerer = QuestionAnswerer("outputs/fusion")
reply = answerer.ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
print(reply.text, reply.probability, reply.start, reply.end)
for candidate in reply.n_best[:3]:
    print(candidate.text, candidate.probability)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from adapter_qa.config.options import ModelOptions, QADataOptions, answering_options
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.core.messages import log_note
from adapter_qa.data.batches import encoder_inputs
from adapter_qa.data.samplers import LongestFirst
from adapter_qa.data.squad import Question, Record, to_questions
from adapter_qa.data.window_dataset import WindowCollator, WindowDataset, pair_tokenizer, progress_bar
from adapter_qa.data.windows import make_windows
from adapter_qa.models.adapter_setup import AdapterSetup, setup_for_inference
from adapter_qa.models.base_config import read_base_config, window_limit
from adapter_qa.models.base_model import load_model, load_tokenizer, silence_library_notices, weights_fingerprint
from adapter_qa.models.build import build_setup, check_setup
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.models.fusion import use_inference_fusion
from adapter_qa.models.fusion_attention import FusionAttention, FusionAttentionDocument
from adapter_qa.models.metadata import RunMetadata, read_metadata
from adapter_qa.models.saved_adapters import find_folder, is_adapter_dir, read_setup
from utils_qa import Answers, Candidate, SpanCollector, choose_answers, window_spans


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer; "" for no answer.
        probability: softmax of the scores over the candidates that the run keeps (`n_best_size`).
        start, end: first and past-last character in the context; both 0 for no answer.
        n_best: the candidates, best first.
        no_answer: SQuAD v2: the probability that there is none.
        null_odds: SQuAD v2: logits by which no answer is ahead of the best span; above the threshold it is the answer.
        attention: what weight the fusion gave to its adapters, in the form of fusion_attention.json; None where nothing
            is fused, or many questions were asked at once.
    """

    text: str
    probability: float
    start: int
    end: int
    n_best: tuple[Candidate, ...]
    no_answer: float | None = None
    null_odds: float | None = None
    attention: FusionAttentionDocument | None = None

    def document(self, n_best: int = 1) -> dict[str, Any]:
        """What is written as JSON: `answer`, `score`, `start` and `end`; for v2 `no_answer_score` and `null_odds`;
        with more than one candidate `n_best`, a list of the like.
        """
        document: dict[str, Any] = {
            "answer": self.text, "score": self.probability, "start": self.start, "end": self.end,
        }  # fmt: skip
        if self.no_answer is not None:
            document |= {"no_answer_score": self.no_answer, "null_odds": self.null_odds}
        if n_best > 1:
            document["n_best"] = [
                {"answer": one.text, "score": one.probability, "start": one.start, "end": one.end}
                for one in self.n_best[:n_best]
            ]
        return document


class QuestionAnswerer:
    """Answers questions with what a run saved; window and span options are those of the run.

    Args:
        run: a run folder, of adapters or of full fine-tuning, its `adapters-<task>` folder, or a folder of adapters
            with a head saved in 2021.
        base: in place of a run: folder or hub id of a whole model fine-tuned on questions by whomever.
        base_model: folder or hub id of the run's base model, where it is no longer where the run found it; needed for
            folders that do not name it.
        language_adapter: a saved language adapter to put under the task, or "none" to leave out the one that is there.
        no_answer: "no answer" may be the answer, as SQuAD v2 has it; runs that were trained so need not be told.
        null_score_diff_threshold: how many logits "no answer" must be ahead of the best span; None takes the run's.
        batch_size: windows at once.
        device: "cpu", "cuda" or "cuda:0"; None takes a GPU if there is one.

    Raises:
        UserError: no such run, a run of another task, weights that do not fit, no such device, neither or both of run
            and base.
    """

    def __init__(
        self,
        run: str | Path | None = None,
        *,
        base: str | None = None,
        base_model: str | None = None,
        language_adapter: str | None = None,
        no_answer: bool = False,
        null_score_diff_threshold: float | None = None,
        batch_size: int = 16,
        device: str | None = None,
    ):
        if (run is None) == (base is None):
            raise UserError("give a run or a base, one of the two")
        silence_library_notices()
        self.device = find_device(device)
        folder, metadata, options = full_model(base) if base is not None else saved_run(Path(str(run)), base_model)
        base_config = read_base_config(options, "--base" if base is not None else "--model_name_or_path")
        if base is not None:
            check_architecture(base, base_config)
        self.setup = None
        if base is None and not (folder / FULL_FILE).is_file():
            self.setup = setup_for_inference("RUN", str(folder), base_config, language_adapter)
            check_answers(self.setup)
            log_note(self.setup.notes)
        elif language_adapter is not None:
            raise UserError(f"--load_lang_adapter {language_adapter}: {folder} is a whole model and takes no adapters")
        self.options = windows_of(folder, metadata, window_limit(base_config))
        self.options |= no_answer_options(self.options, str(folder), no_answer, null_score_diff_threshold)
        self.tokenizer = load_tokenizer(options)
        self.batch_size = batch_size
        model = load_model(options, "qa", require_head=self.setup is None)
        if self.setup is not None:
            compare_base(model, folder, metadata, options.model_name_or_path)
            build_setup(model, self.setup)
            use_inference_fusion(model)
        self.model = model.to(self.device).eval()

    def ask(self, question: str, context: str) -> Answer:
        """Answers one question.

        Raises:
            UserError: question or context is empty, or no valid text.
        """
        answers, attention = self._answered(as_questions([(question, context)]))
        return replace(as_replies(answers)[0], attention=attention.document() if attention.sites else None)

    def ask_many(self, pairs: Iterable[tuple[str, str]], n_best: int | None = None) -> list[Answer]:
        """Answers pairs of question and context, in their order; a progress bar shows the windows.

        Args:
            pairs: at least one.
            n_best: candidates to keep of each; None keeps all.

        Raises:
            UserError: a question or context is empty, or no valid text.
        """
        return as_replies(self.answer(as_questions(pairs)), n_best)

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Answers questions; a progress bar shows the windows.

        Args:
            questions: with distinct ids; gold answers are not looked at.
        """
        return self._answered(questions)[0]

    def _answered(self, questions: Sequence[Question]) -> tuple[Answers, FusionAttention]:
        """The answers, and the fusion attention over all of their windows."""
        check_setup(self.model, self.setup)
        spans_of = {name: self.options[name] for name in ("n_best_size", "max_answer_length")}
        windows = make_windows(
            questions,
            pair_tokenizer(self.tokenizer),
            max_seq_length=self.options["max_seq_length"],
            doc_stride=self.options["doc_stride"],
            on_progress=progress_bar("windows"),
        )
        collator = WindowCollator(int(self.tokenizer.pad_token_id), self.tokenizer.padding_side == "left")
        longest_first = LongestFirst(windows.lengths())
        collected = SpanCollector(longest_first.order, self.options["n_best_size"], self.device)
        attention = FusionAttention(self.model, self.setup.fusion if self.setup is not None else None, windows.layout)
        batches = DataLoader(WindowDataset(windows), self.batch_size, sampler=longest_first, collate_fn=collator)
        with attention.recording(), torch.inference_mode():
            for batch in tqdm(batches, desc="answering", delay=1, disable=len(batches) == 1):
                on_device = {name: tensor.to(self.device) for name, tensor in batch.items()}
                output = self.model(**encoder_inputs(on_device, self.tokenizer.model_input_names))
                collected.add_batch(window_spans(on_device, output.start_logits, output.end_logits, **spans_of))
                attention.add(on_device, len(batch["input_ids"]))
        answers = choose_answers(
            questions,
            windows,
            collected.spans,
            n_best_size=self.options["n_best_size"],
            version_2=self.options["version_2"],
            null_score_diff_threshold=self.options["null_score_diff_threshold"],
        )
        return answers, attention


def as_questions(pairs: Iterable[tuple[str, str]]) -> list[Question]:
    """Pairs of question and context with the numbers from 1 as ids.

    Raises:
        UserError: there are none, or one is empty or no valid text.
    """
    fields = ({"id": str(number), "question": one[0], "context": one[1]} for number, one in enumerate(pairs, start=1))
    return to_questions([Record(f"pair {one['id']}", one) for one in fields], "ask", need_answers=False)


def as_replies(answers: Answers, n_best: int | None = None) -> list[Answer]:
    """Every question's answer with its candidates, or the first `n_best` of them."""
    replies = []
    odds = answers.null_score_diff.tolist() if answers.null_score_diff is not None else [None] * len(answers.questions)
    for index, (chosen, null_odds) in enumerate(zip(answers.chosen.values(), odds, strict=True)):
        candidates = answers.candidates(index)
        null = next((one.probability for one in candidates if one.end == 0), None) if null_odds is not None else None
        replies.append(
            Answer(
                chosen.text, chosen.probability, chosen.start, chosen.end, tuple(candidates[:n_best]), null, null_odds
            )
        )
    return replies


def find_device(given: str | None) -> torch.device:
    """The device that is meant; None means a GPU if there is one.

    Raises:
        UserError: there is no such device.
    """
    count = torch.cuda.device_count()
    if given is None:
        return torch.device("cuda" if count else "cpu")
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]
    if given not in known:
        raise UserError(f"--device {given}: no such device here; give {' or '.join(known)}")
    return torch.device(given)


def saved_run(run: Path, base_model: str | None) -> tuple[Path, RunMetadata, ModelOptions]:
    """The folder of a run that answers, what it wrote there of itself, and the base model.

    Raises:
        UserError: there is none.
    """
    if (run / FULL_FILE).is_file():
        metadata = read_metadata(run / FULL_FILE)
        return run, metadata, _base_options(run, metadata, base_model)
    if (run / "config.json").is_file() and is_for_questions(read_json(run / "config.json")):
        raise UserError(f"RUN {run}: is a whole model that no run here has made; ask it with --base {run}")
    folder = find_folder("RUN", str(run))
    metadata = read_setup(folder).metadata
    return folder, metadata, _base_options(folder, metadata, base_model)


def full_model(given: str) -> tuple[Path, RunMetadata, ModelOptions]:
    """A model that was fine-tuned whole, by whomever; what a run of ours wrote of itself, if it was one.

    Raises:
        UserError: it is a run with adapters.
    """
    folder = Path(given)
    if is_adapter_dir(folder) or any(is_adapter_dir(path) for path in folder.glob("adapters-*")):
        raise UserError(f"--base {given}: holds adapters; ask it as RUN, without --base")
    known = (folder / FULL_FILE).is_file()
    metadata = read_metadata(folder / FULL_FILE) if known else RunMetadata()
    return folder, metadata, ModelOptions(given)


def is_for_questions(base_config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a model with a head for extractive questions."""
    names = base_config.get("architectures")
    return isinstance(names, list) and any(str(name).endswith("ForQuestionAnswering") for name in names)


def check_architecture(given: str, base_config: dict[str, Any]) -> None:
    """Refuses a whole model without a head for questions, which would answer at random.

    Raises:
        UserError: it is one.
    """
    if not is_for_questions(base_config):
        raise UserError(
            f"--base {given}: was not trained to answer questions (architectures in its config.json: "
            f"{base_config.get('architectures')}); give a model fine-tuned on questions, or a run as RUN"
        )


def compare_base(model: PreTrainedModel, folder: Path, metadata: RunMetadata, name: str) -> None:
    """Warns where the base model, still without adapters, is not the one that a run was trained on."""
    trained_on = metadata.base_model.fingerprint
    if trained_on is not None and weights_fingerprint(model) != trained_on:
        print(
            f"warning: {name} is not the base model that {folder} was trained on; its answers will not be those of the "
            "run",
            file=sys.stderr,
        )


def no_answer_options(options: dict[str, Any], name: str, no_answer: bool, threshold: float | None) -> dict[str, Any]:
    """What is to change of a run's span options so that it may say that there is no answer.

    Raises:
        UserError: a threshold for a run that never says so.
    """
    if threshold is not None and not (no_answer or options["version_2"]):
        raise UserError(
            f"--null_score_diff_threshold: {name} was not trained on questions without an answer (SQuAD v2); "
            "--version_2_with_negative lets it say so all the same"
        )
    changed: dict[str, Any] = {"version_2": True} if no_answer else {}
    return changed if threshold is None else changed | {"null_score_diff_threshold": threshold}


def check_answers(setup: AdapterSetup) -> None:
    """Refuses a setup that was not trained to answer questions.

    Raises:
        UserError: it is so.
    """
    if setup.loads_saved_head:
        return
    assert setup.saved is not None
    head = setup.saved.head
    raise UserError(
        f"{setup.saved.folder}: was not trained to answer questions; it holds "
        + (f"a head of {head.model_class}" if head is not None else "no head")
    )


def windows_of(folder: Path, metadata: RunMetadata, limit: int) -> dict[str, Any]:
    """Window and span options that a run recorded, or the usual ones.

    Raises:
        UserError: the encoder reads no such windows.
    """
    windows = metadata.windows.as_options() if metadata.windows else usual_windows(limit)
    if windows["max_seq_length"] > limit:
        raise UserError(f"{folder}: its windows have {windows['max_seq_length']} tokens, the base model reads {limit}")
    return windows


def usual_windows(limit: int) -> dict[str, Any]:
    """Window and span options for folders that do not say theirs: the defaults, within what the encoder reads."""
    length = min(QADataOptions.max_seq_length, limit)
    return answering_options(
        QADataOptions(max_seq_length=length, doc_stride=min(QADataOptions.doc_stride, length // 3))
    )


def _base_options(folder: Path, metadata: RunMetadata, base_model: str | None) -> ModelOptions:
    """The base model; a recorded path that begins with a dot is relative to the saved folder.

    Raises:
        UserError: neither the folder nor the user names it.
    """
    recorded = metadata.base_model
    name = recorded.name_or_path
    if base_model is None and name is None:
        raise UserError(f"{folder}: does not say which base model its adapters stand on; give --model_name_or_path")
    if name is not None and name.startswith("."):
        name = str((folder / name).resolve())
    for kind, other in (("base model", name if base_model is None else None), ("tokenizer", metadata.tokenizer)):
        if other is not None and not Path(other).is_dir():
            log_note([f"{folder}: names {other} as its {kind}; it is fetched from the hub if it is not here already"])
    return ModelOptions(
        model_name_or_path=base_model or str(name),
        model_revision=recorded.revision or "main",
        tokenizer_name=metadata.tokenizer,
    )
