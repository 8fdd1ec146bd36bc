"""The trainer for extractive question answering, which evaluates answers and not logits.

The best spans of each batch are found on the device. The spans of all batches become answers, answer files and scores.

| override | replaces in `transformers.Trainer` | guarded by |
| --- | --- | --- |
| `prediction_step` | collecting of all logits in memory | tests/training/test_trainer.py, test_processes.py |
| `evaluate` | metrics from logits and labels | tests/test_scripts.py: scores from files |
| `_get_eval_sampler` | order of the data | tests/training/test_trainer.py: predictions in order |
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerFast
from transformers.trainer_utils import speed_metrics

from adapter_qa.config.options import MAX_TEMPERATURE, MIN_TEMPERATURE, QADataOptions
from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.files import write_json
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.batches import encoder_inputs, padding_share
from adapter_qa.data.calibration import (
    Calibration,
    CalibrationCurves,
    CalibrationQuality,
    at_temperature,
    confidence,
    fit_temperature,
    fit_threshold,
    measure_calibration,
)
from adapter_qa.data.label_entropy import span_entropy
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.questions import Question
from adapter_qa.data.samplers import LongestFirst
from adapter_qa.data.spans import WindowSpans, choose_answers
from adapter_qa.data.squad_metrics import TOP_K, evaluation_metrics, squad_metrics
from adapter_qa.data.window_dataset import QuestionDataset, WindowCollator, WindowDataset
from adapter_qa.models.build import check_setup
from adapter_qa.models.fusion_attention import FusionAttention
from adapter_qa.models.metadata import FusionAttentionDocument
from adapter_qa.runs.layout import ATTENTION_FILE, curves_file
from adapter_qa.training.adapter_trainer import AdapterTrainer, TaskLoss
from adapter_qa.training.callbacks import open_tensorboards
from adapter_qa.training.training_args import TrainerArguments
from utils_qa import SpanCollector, kept_logits, window_spans, write_answers

if TYPE_CHECKING:  # tensorboard is imported by its callback, and only if it is asked for
    from torch.utils.tensorboard import SummaryWriter

SHOWN_ANSWERS = 8  # in TensorBoard, after every evaluation
# Scores that a calibration changes.
CALIBRATED = ("f1", "exact", "HasAns_f1", "HasAns_exact", "NoAns_f1", "NoAns_exact", "ece", "brier", "log_loss")
ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # token types only if the encoder has them


@dataclass(frozen=True)
class FoundSpans:
    """What a model has found in the windows of questions.

    Attributes:
        dataset: the questions and their windows.
        spans: of all windows, in their order.
        logits: the `kept_logits` of all windows, (windows, 2, length) float32; None if they were not kept.
        attention: of the fusion, over the windows that this process has seen.
        loss: mean over the windows with a known gold span; 0 if there is none.
    """

    dataset: QuestionDataset
    spans: WindowSpans
    logits: np.ndarray | None
    attention: FusionAttention
    loss: float

    def choose(self, options: AnsweringOptions) -> Answers:
        """Choose the answers; the temperature of the options counts only if the logits were kept."""
        spans = self.spans
        if self.logits is not None:
            longest = options.max_answer_length
            spans = at_temperature(spans, self.logits, options.temperature, max_answer_length=longest)
        return choose_answers(self.dataset.questions, self.dataset.windows, spans, options)


class _Recording(NamedTuple):
    """Where a running evaluation keeps what it finds."""

    collector: SpanCollector
    attention: FusionAttention


class QuestionAnsweringTrainer(AdapterTrainer):
    """`AdapterTrainer` for extractive question answering.

    The best spans are chosen on the device, batch by batch, so logits of all windows are never in memory.

    Args:
        options: how answers are chosen; `calibrate` changes them.
        pad_to_max_length: whether padding is a possible answer in the loss, as in the reference scripts.
        kwargs: as for `AdapterTrainer`; datasets are `QuestionDataset`.
    """

    def __init__(self, *, options: AnsweringOptions, pad_to_max_length: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.options = options
        self.pad_to_max_length = pad_to_max_length
        self.calibration: Calibration | None = None
        self.recording: _Recording | None = None  # of the evaluation that runs

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> TaskLoss:
        """Return the sum of `span_losses` of a batch, and the number of its windows with a known gold span."""
        names = [name for name in ENCODER_INPUTS if name in inputs]
        outputs = model(**encoder_inputs(inputs, names, self.mask_dimensions))
        mask = self.loss_mask(inputs)
        losses = span_losses(outputs.start_logits, outputs.end_logits, inputs, mask, self.smoothing(model))
        return TaskLoss(losses.sum(), self.loss_weight(inputs), outputs)

    def loss_weight(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the number of windows with a known gold span."""
        return (inputs["start_positions"] != IGNORE_INDEX).sum().float()

    def label_entropy(self) -> float:
        """Return the loss of a model that only knows how many windows have no answer; see `span_entropy`."""
        dataset: Any = self.train_dataset
        return span_entropy(dataset.windows)

    def loss_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the attention mask; None with --pad_to_max_length, where padding is a possible answer."""
        return None if self.pad_to_max_length else inputs["attention_mask"]

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, None, None]:
        """Compute the loss of a batch, and add the best spans of all processes to `recording`."""
        self._mask_duplicate_rows(inputs, self.args.eval_batch_size)
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if self.recording is None:
            return loss.detach(), None, None
        spans = window_spans(inputs, outputs.start_logits, outputs.end_logits, self.options)
        collector, attention = self.recording
        logits = None
        if collector.logits is not None:
            logits = kept_logits(inputs, outputs.start_logits, outputs.end_logits, collector.logits.shape[2])
            logits = self.gather_function(logits)
        spans = self.gather_function(spans)  # `Trainer` would copy the spans of all earlier batches with every batch
        collector.add_batch(spans, logits)
        rows = len(outputs.start_logits)
        rows_before = self.args.process_index * rows  # of earlier processes, in the gathered batch
        # The last batch may repeat windows; the attention must not count them twice.
        attention.add(inputs, min(max(len(spans.scores) - rows_before, 0), rows))
        return loss.detach(), None, None

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Answer the evaluation questions, write the answers, and return and log the metrics.

        `Trainer` passes the arguments; the data are always those that the trainer was made with.

        Raises:
            ValueError: if the trainer was made without evaluation data.
        """
        if not isinstance(self.eval_dataset, QuestionDataset):
            raise ValueError("the trainer has no evaluation data")
        keeps_logits = self.calibration is not None
        found, metrics = self.answer(self.eval_dataset, metric_key_prefix, keeps_logits=keeps_logits)
        self.log(metrics)
        self._save_attention(found.attention)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        """Return the longest windows first; `answer` puts the spans back into the order of the windows."""
        return LongestFirst(eval_dataset.lengths())

    def calibrate(self, dataset: QuestionDataset) -> tuple[Calibration, dict[str, float]]:
        """Fit temperature and threshold to questions with the current weights, and answer with them from now on.

        Returns:
            What was fitted, and the metrics of these questions before, with the prefix `calibration`.
        """
        found, metrics = self.answer(dataset, "calibration", keeps_logits=True)
        calibration = on_main_process(lambda: fit_calibration(found, self.options))
        self.options = replace(self.options, temperature=calibration.temperature.value)
        if calibration.threshold is not None:
            self.options = replace(self.options, null_score_diff_threshold=calibration.threshold.value)
        self.calibration = calibration
        return calibration, metrics

    def answer(
        self, dataset: QuestionDataset, prefix: str, *, keeps_logits: bool = False
    ) -> tuple[FoundSpans, dict[str, float]]:
        """Answer questions with the current weights, for an evaluation or a prediction.

        Writes `<prefix>_predictions.json`, `<prefix>_nbest_predictions.json` and, for v2, `<prefix>_null_odds.json`; if
        the gold answers are known, `<prefix>_curves.json`.

        Args:
            dataset: the questions and their windows.
            prefix: of files and metrics.
            keeps_logits: collect `kept_logits`, 8 bytes of memory for a token: for a calibration, and to compare with
                the answers without it.

        Returns:
            What was found in the windows, and metrics with the prefix, the same in all processes. The metrics include
            loss and scores if the gold answers of all questions are known; in SQuAD v1 every question needs one.
            `answers_runtime` is the time in seconds to choose and write the answers, `scores_runtime` the time to score
            them.
        """
        check_setup(self.model, self.setup)
        started = time.time()
        found = self._find_spans(dataset, prefix, keeps_logits=keeps_logits)
        metrics = on_main_process(lambda: self._write_and_score(found, prefix))
        if self._gold_is_known(dataset.questions):
            metrics[f"{prefix}_loss"] = found.loss
        metrics[f"{prefix}_questions"] = len(dataset.questions)
        metrics[f"{prefix}_windows"] = len(dataset)
        metrics.update(speed_metrics(prefix, started, num_samples=len(dataset)))
        return found, metrics

    def _find_spans(self, dataset: QuestionDataset, prefix: str, *, keeps_logits: bool) -> FoundSpans:
        """Run the model on all windows."""
        lengths = dataset.lengths()
        collector = SpanCollector(
            LongestFirst(lengths).order,
            self.options.spans_to_keep(),
            self.args.device,
            logit_length=int(lengths.max()) if keeps_logits else None,
            temperature=self.options.temperature,
        )
        fusion = self.setup.fusion if self.setup is not None else None
        attention = FusionAttention(self.model, fusion, dataset.windows.layout)
        # Only the loader of the evaluation data keeps its workers, with --dataloader_persistent_workers.
        loader = self.get_eval_dataloader() if dataset is self.eval_dataset else self.get_test_dataloader(dataset)
        self.recording = _Recording(collector, attention)
        with attention.recording():
            output = self.evaluation_loop(
                loader, description=prefix, prediction_loss_only=False, metric_key_prefix=prefix
            )
        self.recording = None
        logits = None if collector.logits is None else collector.logits.cpu().numpy()
        loss = (output.metrics or {})[f"{prefix}_loss"]
        return FoundSpans(dataset, collector.spans, logits, attention, loss)

    def _write_and_score(self, found: FoundSpans, prefix: str) -> dict[str, float]:
        started = time.perf_counter()
        questions = found.dataset.questions
        answers = found.choose(self.options)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_answers(answers, self.folder, prefix)
        written = time.perf_counter()
        scores: dict[str, float] = {}
        if self._gold_is_known(questions):
            scores = self.official_scores(questions, answers)
            quality = measure_calibration(questions, answers, version_2=self.options.version_2)
            scores |= quality.metrics
            if self.calibration is not None and found.logits is not None:
                plain = quality_without_calibration(found, self.options)
                scores |= plain.metrics
                quality.curves.uncalibrated = plain.curves
            write_json(self.folder / curves_file(prefix), msgspec.to_builtins(quality.curves))
        metrics = {f"{prefix}_{name}": value for name, value in scores.items()}
        metrics[f"{prefix}_answers_runtime"] = round(written - started, 4)
        metrics[f"{prefix}_scores_runtime"] = round(time.perf_counter() - written, 4)
        for callback in open_tensorboards(self):
            table = answers_table(questions[:SHOWN_ANSWERS], answers)
            callback.tb_writer.add_text(f"{prefix}/answers", table, self.state.global_step)
        return metrics

    def _gold_is_known(self, questions: Sequence[Question]) -> bool:
        version_2 = self.options.version_2
        return all(question.answers_known and (version_2 or question.answer_texts) for question in questions)

    def official_scores(self, questions: Sequence[Question], answers: Answers) -> dict[str, float]:
        """Return the `evaluation_metrics` of questions whose gold answers are known."""
        return evaluation_metrics(
            answers.texts(),
            answers.candidate_texts(max(TOP_K)),
            questions,
            kept=self.options.n_best_size,
            null_odds=answers.null_odds if self.options.version_2 else None,
        )

    def _save_attention(self, attention: FusionAttention) -> None:
        """Write the fusion attention of an evaluation to its file and to TensorBoard."""
        if attention.sites:
            attention.sums, attention.counts = self.accelerator.reduce((attention.sums, attention.counts))
            on_main_process(lambda: self._write_attention(attention.document()))

    def _write_attention(self, document: FusionAttentionDocument) -> None:
        write_json(self.folder / ATTENTION_FILE, document)
        for callback in open_tensorboards(self):
            log_fusion_attention(callback.tb_writer, document, self.state.global_step, with_figure=not self.is_in_train)

    def padding(self) -> dict[str, float]:
        """Return the share of padding among the tokens of the first training epoch and of an evaluation, 0 to 1."""
        collator: Any = self.data_collator
        shares = {}
        for split, windows, make_sampler, batch_size in (
            ("train", self.train_dataset, self._get_train_sampler, self.args.train_batch_size),
            ("eval", self.eval_dataset, self._get_eval_sampler, self.args.eval_batch_size),
        ):
            if isinstance(windows, WindowDataset):
                order = make_sampler(windows) or ()
                share = padding_share(
                    order, windows.lengths(), batch_size, fixed=collator.length, multiple=collator.multiple
                )
                shares[split] = round(share, 4)
        return shares


def fit_calibration(found: FoundSpans, options: AnsweringOptions) -> Calibration:
    """Fit temperature and threshold; the logits must have been kept."""
    questions, version_2, threshold = found.dataset.questions, options.version_2, None
    if version_2:
        threshold = fit_threshold(questions, found.choose(options))
        options = replace(options, null_score_diff_threshold=threshold.value)

    def loss(temperature: float) -> float:
        answers = found.choose(replace(options, temperature=temperature))
        return confidence(questions, answers, version_2=version_2).log_loss()

    return Calibration(fit_temperature(loss, (MIN_TEMPERATURE, MAX_TEMPERATURE)), threshold)


def quality_without_calibration(found: FoundSpans, options: AnsweringOptions) -> CalibrationQuality:
    """Return scores and reliability with the default temperature and threshold; the logits must have been kept."""
    questions, version_2 = found.dataset.questions, options.version_2
    answers = found.choose(
        replace(
            options,
            temperature=AnsweringOptions.temperature,
            null_score_diff_threshold=AnsweringOptions.null_score_diff_threshold,
        )
    )
    quality = measure_calibration(questions, answers, version_2=version_2)
    scores = squad_metrics(answers.texts(), questions, version_2=version_2) | quality.metrics
    metrics = {f"{name}_uncalibrated": scores[name] for name in CALIBRATED if name in scores}
    return CalibrationQuality(metrics, CalibrationCurves(quality.curves.reliability))


def make_collator(tokenizer: PreTrainedTokenizerFast, options: QADataOptions, args: TrainerArguments) -> WindowCollator:
    """Return the collator of a run."""
    return WindowCollator(
        pad_id=int(tokenizer.pad_token_id),
        left=tokenizer.padding_side == "left",
        length=options.max_seq_length if options.pad_to_max_length else None,
        multiple=args.padding_multiple,
    )


def span_losses(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    labels: dict[str, torch.Tensor],
    mask: torch.Tensor | None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the mean of start and end cross entropy of each window (Devlin et al., BERT, section 4.2), in float32.

    Args:
        start_logits: (windows, length).
        end_logits: (windows, length).
        labels: `start_positions` and `end_positions`, (windows,) int64, `IGNORE_INDEX` if the gold span is unknown.
        mask: (windows, length), 0 at padding, which is left out of the softmax. With None the softmax includes padding,
            as in the reference implementation; the loss then depends on the length to which a batch is padded.
        smoothing: share of the target, 0 to 1, that is spread evenly over the tokens of the softmax.

    Returns:
        (windows,) float32, 0 if the gold span is unknown.
    """
    losses = torch.zeros(len(start_logits), device=start_logits.device)
    for name, logits in (("start_positions", start_logits), ("end_positions", end_logits)):
        scores = logits.float() if mask is None else logits.float().masked_fill(mask == 0, -torch.inf)
        loss = functional.cross_entropy(scores, labels[name], ignore_index=IGNORE_INDEX, reduction="none")
        if smoothing:
            tokens = torch.ones_like(labels[name])[:, None].expand_as(scores) if mask is None else mask
            # Not the function's own label_smoothing, which is infinite where a token is left out.
            spread = functional.log_softmax(scores, -1).masked_fill(tokens == 0, 0).sum(-1) / -tokens.sum(-1)
            loss = (1 - smoothing) * loss + smoothing * spread.masked_fill(labels[name] == IGNORE_INDEX, 0)
        losses = losses + loss / 2
    return losses


def span_loss(
    start_logits: torch.Tensor, end_logits: torch.Tensor, labels: dict[str, torch.Tensor], mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean of `span_losses` over the windows with a known gold span; 0 if there is none."""
    known = (labels["start_positions"] != IGNORE_INDEX).sum().clamp(min=1)
    return span_losses(start_logits, end_logits, labels, mask).sum() / known


def log_fusion_attention(
    writer: SummaryWriter, document: FusionAttentionDocument, step: int, *, with_figure: bool
) -> None:
    """Log the mean weight of every adapter at every site in TensorBoard.

    Args:
        writer: TensorBoard's.
        document: `FusionAttention.document`.
        step: optimizer step.
        with_figure: add the heat map, if matplotlib is installed.
    """
    for site, weights in zip(document["places"], document["all"], strict=True):
        for name, weight in zip(document["adapters"], weights, strict=True):
            writer.add_scalar(f"fusion_attention/{site}/{name}", weight, step)
    if with_figure and find_spec("matplotlib") is not None:
        from adapter_qa.reporting.figures import attention_figure

        writer.add_figure("fusion_attention", attention_figure(document), step)
    writer.flush()


def answers_table(questions: Sequence[Question], answers: Answers) -> str:
    """Return questions, gold answers and answers as a Markdown table."""
    lines = ["| question | gold | answer |", "| --- | --- | --- |"]
    texts = answers.texts()
    for question in questions:
        gold = question.answer_texts[0] if question.answer_texts else ""
        cells = (question.question, gold, texts[question.id])
        lines.append("| " + " | ".join(cell.replace("|", "¦").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)
