"""Load the model that a run saved, and answer questions with it.

Example:
    answerer = QuestionAnswerer("outputs/fusion")
    answer = answerer.ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
    print(answer.text, answer.probability, answer.start, answer.end)
    for candidate in answer.n_best[:3]:
        print(candidate.text, candidate.probability)
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapter_qa.config.option_fields import COUNT
from adapter_qa.config.options import QADataOptions
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.core.library_notices import silenced_loading
from adapter_qa.core.messages import log_note
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers, PlainAnswer
from adapter_qa.data.batches import encoder_inputs
from adapter_qa.data.questions import Question
from adapter_qa.data.readers.records import Record
from adapter_qa.data.readers.squad import to_questions
from adapter_qa.data.spans import WindowSpans, check_logits, choose_answers
from adapter_qa.data.windows import Windows, make_windows, window_layout
from adapter_qa.inference.ask_settings import BATCH_SIZE, number_problems, shown, with_n_best
from adapter_qa.inference.export_layout import EXPORT_FILE
from adapter_qa.inference.pipeline_call import PipelineCall
from adapter_qa.models.base_config import check_window, has_qa_head
from adapter_qa.models.encoders import encoder_of, window_limit
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.models.metadata import answering_options
from adapter_qa.models.saved_folders import adapter_dirs
from adapter_qa.runs.layout import RUN_FILE, fold_folder

if TYPE_CHECKING:  # torch and transformers are imported when a model is loaded: an exported one needs neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from adapter_qa.inference.exported_answerer import ExportedAnswerer
    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.models.fusion_attention import FusionAttention
    from adapter_qa.models.metadata import FusionAttentionDocument
    from adapter_qa.models.saved_model import SavedModel


def import_libraries() -> None:
    """Import all that loading and asking a model take, for a caller who decides when."""
    import utils_qa  # noqa: F401
    from adapter_qa.data import samplers, window_dataset  # noqa: F401
    from adapter_qa.models import base_model, build, fusion_attention, saved_model  # noqa: F401


@dataclass(frozen=True)
class Answer(PlainAnswer):
    """The answer to one question.

    Attributes:
        attention: weights of the adapters in a fusion; None without a fusion, and from `ask_many`.
        windows: number of windows that the context was read in; 1 if it fits into a window.
    """

    attention: FusionAttentionDocument | None = None
    windows: int = 1


@dataclass(frozen=True)
class Overrides:
    """Changes to what a saved model recorded of its training.

    Attributes:
        base_model: folder or hub id of the base model, if it has moved since the run or is not recorded there.
        language_adapter: a saved language adapter to put under the task, in place of one that was saved with it, or
            "none" to leave that out.
        no_answer: True if a question may have no answer (SQuAD v2); not needed for a model trained on SQuAD v2.
        null_score_diff_threshold: a question has no answer if `Answer.null_odds` is above it.
        max_seq_length: length of a window in tokens.
        doc_stride: overlap of neighbouring windows in tokens.
        max_answer_length: length of the longest answer in tokens.
    """

    base_model: str | Path | None = None
    language_adapter: str | Path | None = None
    no_answer: bool = False
    null_score_diff_threshold: float | None = None
    max_seq_length: int | None = None
    doc_stride: int | None = None
    max_answer_length: int | None = None

    def sizes(self) -> dict[str, int]:
        """Return the given numbers of tokens by name."""
        names = ("max_seq_length", "doc_stride", "max_answer_length")
        return {name: value for name in names if (value := vars(self)[name]) is not None}

    def problems(self) -> list[str]:
        """Return what is wrong with the numbers by themselves; empty if nothing is."""
        problems = number_problems(self.sizes())
        threshold = self.null_score_diff_threshold
        if threshold is not None and not (isinstance(threshold, Real) and math.isfinite(threshold)):
            problems.append(f"null_score_diff_threshold is {shown(threshold)}; it must be a finite number")
        return problems


class QuestionAnswerer(PipelineCall):
    """A saved model that answers questions, with the run's own options for windows and answers.

    It can be called as the pipeline for question answering of transformers 4 was. Several threads may use it: their
    questions wait for one another.

    Args:
        run: folder of a run with adapters or full fine-tuning, its `adapters-<task>` folder, or a folder with adapters
            and head of adapter-transformers 2.x.
        base: instead of a run: folder or hub id of any model that was fully fine-tuned on questions.
        overrides: changes to what the run recorded.
        batch_size: windows per forward pass.
        device: "cpu", "cuda" or "cuda:0", as text or as a device of torch; None takes a GPU if there is one.

    Attributes:
        saved: its files and metadata.
        setup: its adapters; None after full fine-tuning.
        options: the options for windows and answers.
        model: the model with its adapters, in evaluation mode.

    Raises:
        UserError: if the folder holds no model that answers questions, an override, the batch size or the device cannot
            be used, or `run` and `base` are both given or both missing.
    """

    def __init__(
        self,
        run: str | Path | None = None,
        *,
        base: str | Path | None = None,
        overrides: Overrides = Overrides(),
        batch_size: int = BATCH_SIZE,
        device: str | torch.device | None = None,
    ):
        from adapter_qa.data.window_dataset import pair_tokenizer
        from adapter_qa.models.base_model import load_tokenizer
        from adapter_qa.models.saved_model import find_adapters, find_full_model, find_run

        self._one_at_a_time = threading.Lock()  # hooks of two recordings would see each other's passes
        raise_if_any(overrides.problems() + number_problems({"batch_size": batch_size}))
        self.batch_size = batch_size
        self.device = _find_device(device)
        if run is not None and base is None:
            _check_run(Path(run))
            self.saved = find_run(Path(run), _name(overrides.base_model))
        elif base is not None and run is None:
            _refuse_export("--base", Path(base))
            self.saved = find_full_model(str(base))
        else:
            raise UserError(f"run is {run!r} and base is {base!r}; give exactly one of them")
        self.setup = find_adapters(self.saved, _name(overrides.language_adapter))
        self.options = _find_options(self.saved, overrides)
        self.tokenizer = load_tokenizer(self.saved.base)
        self.pair_tokenizer = pair_tokenizer(self.tokenizer)
        window_layout(self.pair_tokenizer, self.options.max_seq_length, self.options.doc_stride)
        with silenced_loading():
            self.model = _load_saved_model(self.saved, self.setup, self.tokenizer)
        self.model.to(self.device).eval()  # type: ignore[arg-type]  # transformers wraps the method without its type

    @staticmethod
    def from_onnx(folder: str | Path, *, batch_size: int = BATCH_SIZE) -> ExportedAnswerer:
        """Return a model that `export_qa.py` wrote, which is called in the same way, without torch and transformers.

        Raises:
            UserError: a file of the folder is missing or damaged.
        """
        from adapter_qa.inference.exported_answerer import ExportedAnswerer

        return ExportedAnswerer(Path(folder), batch_size)

    def ask(self, question: str, context: str, n_best: int | None = None) -> Answer:
        """Answer one question, with its `n_best` candidates; None: with as many as the run keeps.

        Raises:
            UserError: if a text is empty or not valid, or `n_best` is not a whole number of at least 1.
            RunError: if the model's logits are NaN or infinite; so do the other methods that answer.
        """
        answers, attention, counts = self._answer(
            read_pairs([(question, context)]), with_n_best(self.options, n_best), self.batch_size
        )
        document = attention.document() if attention.sites else None
        return Answer(**vars(answers.plain(n_best)[0]), attention=document, windows=counts[0])

    def ask_many(self, pairs: Iterable[tuple[str, str] | Mapping[str, str]], n_best: int | None = None) -> list[Answer]:
        """Answer pairs of question and context, or dictionaries of both; `n_best` as for `ask`.

        Raises:
            UserError: if there is no pair, one is not a pair, a text is empty or not valid, or `n_best` is not a whole
                number of at least 1.
        """
        answers, _, counts = self._answer(read_pairs(pairs), with_n_best(self.options, n_best), self.batch_size)
        return [Answer(**vars(a), windows=count) for a, count in zip(answers.plain(n_best), counts, strict=True)]

    def answer(self, questions: Sequence[Question], n_best: int | None = None) -> Answers:
        """Answer questions with distinct ids; their gold answers are not used. `n_best` as for `ask`.

        Raises:
            UserError: if there is no question, or `n_best` is not a whole number of at least 1.
        """
        return self.answer_with(questions, with_n_best(self.options, n_best), self.batch_size)

    def answer_with(self, questions: Sequence[Question], options: AnsweringOptions, batch_size: int) -> Answers:
        """Answer questions with distinct ids with options of their own; `batch_size` windows per forward pass."""
        return self._answer(questions, options, batch_size)[0]

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that identify what answers: weights, tokenizer and options."""
        from adapter_qa.models.base_tokenizer import tokenizer_fingerprint
        from adapter_qa.models.identity import model_fingerprint

        tokenizer = tokenizer_fingerprint(self.tokenizer)
        return {
            "model": model_fingerprint(self.model),
            "tokenizer": f"{tokenizer.vocabulary} {tokenizer.text}",
            **self.options.document(),
        }

    def _longest_window(self) -> int:
        return window_limit(self.saved.base_config)

    def _answer(
        self, questions: Sequence[Question], options: AnsweringOptions, batch_size: int
    ) -> tuple[Answers, FusionAttention, list[int]]:
        """Return the answers, the fusion attention over all windows, and the number of windows of each question."""
        from adapter_qa.data.window_dataset import progress_bar

        windows = make_windows(
            questions,
            self.pair_tokenizer,
            max_seq_length=options.max_seq_length,
            doc_stride=options.doc_stride,
            on_progress=progress_bar("windows"),
        )
        if windows.cut_questions:
            lost = f"{windows.cut_questions} of {len(questions)} questions"
            log_note([f"{lost} were too long for the window and lost their end"])
        spans, attention = self._find_spans(windows, options, batch_size)
        check_logits(spans)
        answers = choose_answers(questions, windows, spans, options)
        return answers, attention, np.bincount(windows.question_index, minlength=len(questions)).tolist()

    def _find_spans(
        self, windows: Windows, options: AnsweringOptions, batch_size: int
    ) -> tuple[WindowSpans, FusionAttention]:
        """Run the model and return the best spans of each window, and the fusion attention over all windows."""
        import torch
        from torch.utils.data import DataLoader
        from tqdm.auto import tqdm

        from adapter_qa.data.samplers import LongestFirst
        from adapter_qa.data.window_dataset import WindowCollator, WindowDataset
        from adapter_qa.models.base_model import without_cudnn_attention
        from adapter_qa.models.build import check_setup
        from adapter_qa.models.fusion_attention import FusionAttention
        from utils_qa import SpanCollector, window_spans

        check_setup(self.model, self.setup)
        sampler = LongestFirst(windows.lengths())
        collator = WindowCollator(int(self.tokenizer.pad_token_id), self.tokenizer.padding_side == "left")
        batches = DataLoader(WindowDataset(windows), batch_size, sampler=sampler, collate_fn=collator)
        collector = SpanCollector(sampler.order, options.spans_to_keep(), self.device, temperature=options.temperature)
        is_hidden = True if len(batches) == 1 else None  # None: without a terminal
        attention = FusionAttention(self.model, self.setup.fusion if self.setup is not None else None, windows.layout)
        mask_dimensions = encoder_of(self.saved.base_config).mask_dimensions
        with self._one_at_a_time, without_cudnn_attention(), attention.recording(), torch.inference_mode():
            for cpu_batch in tqdm(batches, desc="answering", delay=1, leave=False, disable=is_hidden):
                batch = {name: tensor.to(self.device) for name, tensor in cpu_batch.items()}
                output = self.model(**encoder_inputs(batch, self.tokenizer.model_input_names, mask_dimensions))
                collector.add_batch(window_spans(batch, output.start_logits, output.end_logits, options))
                attention.add(batch, len(batch["input_ids"]))
        return collector.spans, attention


# ---------------------------------------------------------------- questions and answers


def read_pairs(pairs: Iterable[tuple[str, str] | Mapping[str, str]]) -> list[Question]:
    """Return pairs of question and context, or dictionaries of both, as questions with the ids "1", "2", ...

    Raises:
        UserError: if there is no pair, one is not a pair, or a text is empty or not valid.
    """
    records = [
        Record(f"pair {number}", {"id": str(number), **_texts_of(pair, number)})
        for number, pair in enumerate(pairs, start=1)
    ]
    return to_questions(records, "ask", need_answers=False)


def _texts_of(pair: object, number: int) -> dict[str, object]:
    """Return question and context of a pair by name."""
    names = ("question", "context")
    if isinstance(pair, Mapping):
        if pair.keys() >= {*names}:
            return {name: pair[name] for name in names}
    elif isinstance(pair, Iterable) and not isinstance(pair, (str, Set)):
        texts = [*pair]
        if len(texts) == len(names):
            return dict(zip(names, texts, strict=True))
    raise UserError(
        f"ask: pair {number} ({type(pair).__name__}) is not a question and its context; give a tuple of these two, or "
        "a dictionary with both"
    )


# ---------------------------------------------------------------- find the saved model


def _check_run(run: Path) -> None:
    """Raise UserError if a folder is no run that has saved a model; the message says what it is."""
    _refuse_export("RUN", run)
    if (run / FULL_FILE).is_file():
        return
    if (run / "config.json").is_file() and has_qa_head(read_json(run / "config.json")):
        raise UserError(
            f"RUN {run}: is a fully fine-tuned model but not from a run; only ask_qa.py takes it, as --base {run}"
        )
    if (run / RUN_FILE).is_file() and not adapter_dirs(run):
        document = read_json(run / RUN_FILE)
        status = document.get("status")
        advice = "ask the run that it evaluated" if status == "finished" else "its command again finishes it"
        if status == "finished" and "folds" in document:
            advice = f"ask one of its folds, such as {fold_folder(run, 1)}"
        raise UserError(f"RUN {run}: this run is {status} and has saved nothing; {advice}")


def _name(folder: str | Path | None) -> str | None:
    """Return a folder or a hub id as text."""
    return None if folder is None else str(folder)


def _refuse_export(option: str, folder: Path) -> None:
    if (folder / EXPORT_FILE).is_file():
        raise UserError(f"{option} {folder}: is an ONNX export; use its answer.py or QuestionAnswerer.from_onnx")


def _find_options(saved: SavedModel, overrides: Overrides) -> AnsweringOptions:
    """Return the recorded options for windows and answers, or the defaults, with the overrides."""
    limit = window_limit(saved.base_config)
    if saved.metadata.windows is not None:
        recorded = saved.metadata.windows.as_options()
    else:
        length = overrides.max_seq_length or min(QADataOptions.max_seq_length, limit)
        stride = min(QADataOptions.doc_stride, length // 3)
        recorded = answering_options(QADataOptions(max_seq_length=length, doc_stride=stride))
    options = replace(recorded, **overrides.sizes(), version_2=recorded.version_2 or overrides.no_answer)
    if overrides.max_seq_length is not None:
        check_window(overrides.max_seq_length, "--max_seq_length", saved.base_config)
    elif options.max_seq_length > limit:
        raise UserError(
            f"{saved.folder}: its windows have {options.max_seq_length} tokens, the base model reads {limit}"
        )
    if not COUNT.allow(options.max_answer_length):
        raise UserError(f"--max_answer_length {options.max_answer_length:.10g}: must be {COUNT}")
    if overrides.null_score_diff_threshold is None:
        return options
    if not options.version_2:
        raise UserError(
            f"--null_score_diff_threshold: {saved.folder} was not trained on questions without an answer (SQuAD "
            "v2); add --version_2_with_negative to allow no answer"
        )
    return replace(options, null_score_diff_threshold=overrides.null_score_diff_threshold)


# ---------------------------------------------------------------- load the model


def _find_device(device: str | torch.device | None) -> torch.device:
    """Return the device with a name; for None, a GPU if there is one."""
    import torch

    count = torch.cuda.device_count()
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]
    default = "cuda" if count else "cpu"
    name = default if device is None else str(device)
    if name not in known:
        raise UserError(f"--device {name}: no such device here; give {' or '.join(known)}")
    return torch.device(name)


def _load_saved_model(
    saved: SavedModel, setup: AdapterSetup | None, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedModel:
    """Load the base model with its adapters, or a fully fine-tuned model."""
    from adapter_qa.models.base_model import load_model
    from adapter_qa.models.base_tokenizer import tokenizer_fingerprint
    from adapter_qa.models.build import build_setup
    from adapter_qa.models.fusion import use_inference_fusion
    from adapter_qa.models.identity import Base, check_origins, origins_of, swapped_origin, weights_fingerprint

    model = load_model(saved.base, "qa", require_head=setup is None)
    if setup is not None:
        base = Base(saved.base, weights_fingerprint(model), tokenizer_fingerprint(tokenizer))
        check_origins(origins_of(setup), base, trains=False, swapped=swapped_origin(setup))
        build_setup(model, setup)
        use_inference_fusion(model)
    return model
