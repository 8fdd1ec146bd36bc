"""The trainer that evaluates by answers: it predicts spans, and lets what it is given choose answers and score them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import speed_metrics

from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.files import write_json
from adapter_qa.data.batches import encoder_inputs, padding_share
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.samplers import LongestFirst
from adapter_qa.data.squad import Question
from adapter_qa.data.windows import Windows
from adapter_qa.models.build import check_setup
from adapter_qa.models.fusion_attention import ATTENTION_FILE, FusionAttention, show_attention
from adapter_qa.training.adapter_trainer import AdapterTrainer
from utils_qa import Answers, SpanCollector, WindowSpans, window_spans

SHOWN_ANSWERS = 8  # in TensorBoard, after every evaluation
FOR_THE_MODEL = ("input_ids", "attention_mask", "token_type_ids")  # the last one where the encoder has types

ChooseAnswers = Callable[[Sequence[Question], Windows, WindowSpans], Answers]
ScoreAnswers = Callable[[Sequence[Question], Answers], dict[str, float]]


class QuestionAnsweringTrainer(AdapterTrainer):
    """`AdapterTrainer` for question answering.

    The best spans of each window are found where the logits are, batch by batch, so that memory does not grow with
    the length of the windows.

    Args:
        eval_questions: the questions that `eval_dataset` was made from; none where nothing is evaluated.
        eval_dataset: windows to evaluate on.
        choose_answers: from questions, windows and spans to answers.
        score_answers: from questions and answers to metrics without a prefix; called where there are gold answers.
        n_best_size: spans kept for each window.
        max_answer_length: longest span, in tokens.
        padding_competes: the loss counts padding among the wrong answers, as the reference implementation does.
        others: as for `AdapterTrainer`.
    """

    def __init__(
        self,
        *,
        eval_questions: Sequence[Question],
        eval_dataset: Windows | None,
        choose_answers: ChooseAnswers,
        score_answers: ScoreAnswers,
        n_best_size: int,
        max_answer_length: int,
        padding_competes: bool = False,
        **others: Any,
    ):
        super().__init__(eval_dataset=eval_dataset, **others)
        self.eval_questions = eval_questions
        self.eval_windows = eval_dataset
        self.choose_answers = choose_answers
        self.score_answers = score_answers
        self.n_best_size = n_best_size
        self.max_answer_length = max_answer_length
        self.padding_competes = padding_competes
        self.collected: SpanCollector
        self.attention: FusionAttention

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """`span_losses` of a batch added up, and the number of its windows whose gold span is known."""
        outputs = model(**encoder_inputs(inputs, [name for name in FOR_THE_MODEL if name in inputs]))
        mask = None if self.padding_competes else inputs["attention_mask"]
        losses = span_losses(outputs.start_logits, outputs.end_logits, inputs, mask)
        return losses.sum(), (inputs["start_positions"] != IGNORED).sum().to(losses), outputs

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, None]:
        """Loss of a batch; its best spans (`utils_qa.window_spans`), of all processes, go to `collected`."""
        self._mask_duplicate_rows(inputs, self.args.eval_batch_size)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        spans = window_spans(
            inputs,
            outputs.start_logits,
            outputs.end_logits,
            n_best_size=self.n_best_size,
            max_answer_length=self.max_answer_length,
        )
        spans = self.gather_function(spans)  # here, since `Trainer` would copy all of them with every batch
        self.collected.take(spans)
        size = len(outputs.start_logits)
        before = self.args.process_index * size  # windows of other processes, which come first when gathered
        self.attention.add(inputs, min(max(len(spans[0]) - before, 0), size))  # the last batch repeats windows
        return loss.detach(), None, None

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Answers the evaluation questions, writes the answers, and returns and logs the metrics.

        The arguments are those that `Trainer` calls it with; it evaluates on what the trainer was made with.
        """
        assert self.eval_windows is not None
        loader = self.get_eval_dataloader()
        metrics = self.answer(self.eval_windows, self.eval_questions, metric_key_prefix, loader)
        self.log(metrics)
        self._keep_attention()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        """The longest windows first; `answer` puts the predictions back into the order of the windows."""
        return LongestFirst(eval_dataset.lengths())

    def padding(self) -> dict[str, float]:
        """Share of padding among the tokens of the first training epoch and of an evaluation."""
        collator: Any = self.data_collator
        made = {"fixed": collator.length, "multiple": collator.multiple}
        shares = {}
        for part, windows, sampler, size in (
            ("train", self.train_dataset, self._get_train_sampler, self.args.train_batch_size),
            ("eval", self.eval_windows, self._get_eval_sampler, self.args.eval_batch_size),
        ):
            if isinstance(windows, Windows):
                shares[part] = round(padding_share(sampler(windows) or (), windows.lengths(), size, **made), 4)
        return shares

    def answer(
        self, windows: Windows, questions: Sequence[Question], prefix: str, loader: DataLoader
    ) -> dict[str, float]:
        """Answers questions with the model as it stands; the one path of evaluating and predicting.

        Writes `<prefix>_predictions.json`, `<prefix>_nbest_predictions.json` and, for v2, `<prefix>_null_odds.json`.

        Returns:
            Metrics with the prefix, the same in all processes. Scores are among them if every question came with gold
            answers, or is unanswerable by a v2 file's word. `answers_runtime` is the time in seconds from spans to
            written files, `scores_runtime` that of the scores.
        """
        check_setup(self.model, self.setup)
        began = time.time()
        self.collected = SpanCollector(LongestFirst(windows.lengths()).order, self.n_best_size, self.args.device)
        fusion = self.setup.fusion if self.setup is not None else None
        self.attention = FusionAttention(self.model, fusion, windows.layout)
        with self.attention.recording():
            output = self.evaluation_loop(
                loader, description=prefix, prediction_loss_only=False, metric_key_prefix=prefix
            )
        metrics = on_main_process(partial(self._choose_write_score, windows, questions, prefix))
        metrics |= {name: value for name, value in (output.metrics or {}).items() if name == f"{prefix}_loss"}
        metrics[f"{prefix}_questions"] = len(questions)
        metrics[f"{prefix}_windows"] = len(windows)
        metrics.update(speed_metrics(prefix, began, num_samples=len(windows)))
        return metrics

    def _choose_write_score(self, windows: Windows, questions: Sequence[Question], prefix: str) -> dict[str, float]:
        """What is left to do of `answer` once the spans are there, by one process."""
        from_spans = time.perf_counter()
        answers = self.choose_answers(questions, windows, self.collected.spans)
        self.folder.mkdir(parents=True, exist_ok=True)
        answers.write(self.folder, prefix)
        written = time.perf_counter()
        metrics = {f"{prefix}_{name}": value for name, value in self.score_answers(questions, answers).items()}
        metrics[f"{prefix}_answers_runtime"] = round(written - from_spans, 4)
        metrics[f"{prefix}_scores_runtime"] = round(time.perf_counter() - written, 4)
        self._show_answers(questions[:SHOWN_ANSWERS], answers, prefix)
        return metrics

    def _keep_attention(self) -> None:
        """Writes the fusion attention of the evaluation that was, and shows it in TensorBoard."""
        attention = self.attention
        if attention.places:
            attention.sums, attention.counts = self.accelerator.reduce((attention.sums, attention.counts))
            on_main_process(self._write_attention)

    def _write_attention(self) -> None:
        """What is left to do of `_keep_attention` once the sums are there, by one process."""
        document = self.attention.document()
        write_json(self.folder / ATTENTION_FILE, document)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                show_attention(callback.tb_writer, document, self.state.global_step, drawn=not self.is_in_train)

    def _show_answers(self, questions: Sequence[Question], answers: Answers, prefix: str) -> None:
        """A few answers as text in TensorBoard."""
        lines = ["| question | gold | answer |", "| --- | --- | --- |"]
        for question in questions:
            gold = question.answer_texts[0] if question.answer_texts else ""
            cells = (question.question, gold, answers.chosen[question.id].text)
            lines.append("| " + " | ".join(cell.replace("|", "¦").replace("\n", " ") for cell in cells) + " |")
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(f"{prefix}/answers", "\n".join(lines), self.state.global_step)


def span_losses(
    start_logits: torch.Tensor, end_logits: torch.Tensor, labels: dict[str, torch.Tensor], mask: torch.Tensor | None
) -> torch.Tensor:
    """Mean of start and end cross entropy of each window (Devlin et al., BERT, section 4.2), in float32.

    Args:
        start_logits, end_logits: (windows, length).
        labels: `start_positions` and `end_positions`, (windows,) int64, `IGNORED` where the gold span is not known.
        mask: (windows, length), 0 at padding, which is left out of the softmax; None: it is counted there, as in the
            reference implementation, whose loss depends on how far a batch is padded.

    Returns:
        (windows,), 0 where the gold span is not known.
    """
    losses = torch.zeros(len(start_logits), device=start_logits.device)
    for name, logits in (("start_positions", start_logits), ("end_positions", end_logits)):
        scores = logits.float() if mask is None else logits.float().masked_fill(mask == 0, -torch.inf)
        losses = losses + functional.cross_entropy(scores, labels[name], ignore_index=IGNORED, reduction="none") / 2
    return losses


def span_loss(
    start_logits: torch.Tensor, end_logits: torch.Tensor, labels: dict[str, torch.Tensor], mask: torch.Tensor | None
) -> torch.Tensor:
    """Mean of `span_losses` over the windows whose gold span is known; 0 if there is none."""
    known = (labels["start_positions"] != IGNORED).sum().clamp(min=1)
    return span_losses(start_logits, end_logits, labels, mask).sum() / known
