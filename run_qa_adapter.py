#!/usr/bin/env python
"""Trains, evaluates and predicts with an extractive question answering model: fully fine-tuned, a QA adapter, a QA
adapter on a language adapter, or a fusion of adapters. The best epoch by F1 is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import (
    QA_METRICS,
    QA_OPTIONS,
    FusionOptions,
    QADataOptions,
    TrainingOptions,
    answering_options,
)
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.validation import check_counts, check_files, check_run
from adapter_qa.core.cli import run_cli
from adapter_qa.core.distributed import destroy_process_group_on_exit
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import file_fingerprint
from adapter_qa.core.messages import log_note
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import raise_on_signal
from adapter_qa.data.squad import Question, is_aligned, load_hub_squad, read_squad
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.models.base_config import check_window, read_base_config
from adapter_qa.runs.run_record import RunRecord

if TYPE_CHECKING:  # torch and transformers wait inside the functions that need them: --help and mistakes take no time
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.windows import Windows
    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.training.training_args import TrainerArguments
    from adapter_qa.training.workflow import ModelBundle
    from trainer_qa import QuestionAnsweringTrainer
    from utils_qa import Answers

PARTS = {"train": ("train_file", "train"), "eval": ("validation_file", "validation"), "predict": ("test_file", "test")}
EXAMPLES = """\
  run_qa_adapter.py --model_name_or_path neuralmind/bert-base-portuguese-cased --do_train --do_eval \\
      --train_file pt_squad-train-v1.1.json --validation_file pt_squad-dev-v1.1.json --output_dir outputs/qa
  run_qa_adapter.py fusion.yaml --learning_rate 1e-4 --load_lang_adapter outputs/mlm \\
      --fuse_adapters qa=outputs/qa ner=outputs/ner
"""


@destroy_process_group_on_exit()
@raise_on_signal()
@report_resource_errors()
def main(argv: list[str]) -> int:
    """Table of contents of a run; returns the exit code."""
    model_options, squad, adapter, lang, fusion, run_options = read_options(argv)
    steps = partial(read_base_config, model_options), partial(read_parts, squad, run_options)
    base_config, (questions, facts) = run_all(steps)
    check_window(squad.max_seq_length, "--max_seq_length", base_config)

    from adapter_qa.models import base_model
    from adapter_qa.models.adapter_setup import resolve_setup
    from adapter_qa.training import workflow

    setup = resolve_setup("qa", base_config, adapter, lang, fusion, random_init=model_options.random_init)
    check_head(setup, run_options)
    data_name = squad.dataset_name or squad.train_file or squad.validation_file or squad.test_file or "none"
    groups = (squad, adapter, lang, fusion)
    run, record = workflow.start_run("run_qa_adapter.py", argv, data_name, setup, model_options, run_options, *groups)
    if workflow.already_finished(record, run):
        return 0

    record.update(data=facts)
    tokenizer = base_model.load_tokenizer(model_options) if questions else None
    with run.main_process_first(desc="windows"):  # the others find them kept
        windows = window_parts(questions, tokenizer, squad, record)
    answering = {"windows": answering_options(squad), "language": adapter.language}
    bundle = workflow.build(record, model_options, setup, "qa", run, tokenizer, answering)
    if run.dry_run:
        workflow.print_dry_run(bundle, setup, count_parts(questions, windows, run))
        return 0

    assert tokenizer is not None
    trainer = make_trainer(bundle, setup, squad, fusion, run, tokenizer, questions, windows, record)
    if run.do_train:
        workflow.train(trainer, record)
        workflow.save_results(trainer, bundle, setup, record, tokenizer)
    if run.do_eval:
        workflow.record_metrics(trainer, record, "eval", trainer.evaluate())
        if squad.version_2_with_negative:
            record.update(best_thresholds="tuned on the evaluation questions themselves: an upper bound, no result")
    if run.do_predict:
        loader = trainer.get_test_dataloader(windows["predict"])
        metrics = trainer.answer(windows["predict"], questions["predict"], "predict", loader)
        workflow.record_metrics(trainer, record, "predict", metrics)
    workflow.finish(trainer, record)
    return 0


def read_options(argv: list[str]) -> tuple[Any, ...]:
    """Model, question, adapter, language adapter, fusion and run options, checked.

    Raises:
        UserError: every problem that the options alone show.
    """
    options = ConfigParser(QA_OPTIONS, str(__doc__), EXAMPLES).read(argv)
    squad, run = options[1], options[-1]
    problems = check_run(run, QA_METRICS) + check_files(squad)
    problems += check_counts(
        squad, ["max_train_samples", "max_eval_samples", "max_predict_samples", "n_best_size", "max_answer_length"]
    )
    for part, (file, _) in PARTS.items():
        if vars(run)[f"do_{part}"] and squad.dataset_name is None and vars(squad)[file] is None:
            problems.append(f"--do_{part} needs --{file} or --dataset_name")
    if squad.doc_stride < 0:
        problems.append(f"--doc_stride {squad.doc_stride}: must be at least 0")
    if problems:
        raise UserError(problems)
    return options


def check_head(setup: AdapterSetup | None, run: TrainingOptions) -> None:
    """Refuses to evaluate or predict with an adapter whose saved folder has no question answering head.

    Raises:
        UserError: it is so.
    """
    if setup is None or setup.loads_saved_head or run.do_train or run.dry_run or setup.tasks[0].folder is None:
        return
    head = setup.saved.head if setup.saved is not None else None
    held = f" (its head belongs to {head.model_class})" if head is not None else ""
    raise UserError(
        f"{setup.tasks[0].folder}: comes without a question answering head{held}; add --do_train to train one"
    )


def read_parts(squad: QADataOptions, run: TrainingOptions) -> tuple[dict[str, list[Question]], dict[str, Any]]:
    """Questions of each part of the run that is asked for; a dry run counts every file it is given.

    Returns:
        The questions, and for run.json where they come from and how many they are, both by part.

    Raises:
        UserError: unreadable data, no usable question, or v2 data without the option.
    """
    wanted = [
        part
        for part, (file, _) in PARTS.items()
        if vars(run)[f"do_{part}"] or (run.dry_run and vars(squad)[file] is not None)
    ]
    found = dict(zip(wanted, run_all(partial(read_part, squad, part) for part in wanted), strict=True))
    return {part: one[0] for part, one in found.items()}, {part: one[1] for part, one in found.items()}


def read_part(squad: QADataOptions, part: str) -> tuple[list[Question], dict[str, Any]]:
    """Questions of one part, and for run.json where they come from and how many they are.

    Raises:
        UserError: as `read_parts`.
    """
    file, split = PARTS[part]
    path, need_answers = vars(squad)[file], part != "predict"
    if path is not None:
        found, facts = read_squad(path, need_answers=need_answers), file_fingerprint(path)
    else:
        found = load_hub_squad(str(squad.dataset_name), squad.dataset_config_name, split, need_answers=need_answers)
        facts = {"dataset": squad.dataset_name, "config": squad.dataset_config_name, "split": split}
    found = found[: vars(squad)[f"max_{part}_samples"]]
    facts["unaligned"] = sum(bool(one.answer_texts) and not is_aligned(one) for one in found)
    found = usable_questions(found, part, squad) if need_answers else found
    return found, {**facts, "questions": len(found)}


def usable_questions(questions: list[Question], part: str, squad: QADataOptions) -> list[Question]:
    """Training questions whose first answer stands where they say; for evaluation all, as the official scorer has it.

    Raises:
        UserError: none is left, or some have no answer without --version_2_with_negative.
    """
    name = vars(squad)[PARTS[part][0]] or squad.dataset_name
    empty = sum(not question.answer_texts for question in questions)
    if empty and not squad.version_2_with_negative:
        raise UserError(f"{name}: {empty} questions have no answer; SQuAD v2 data needs --version_2_with_negative True")
    if part != "train":
        return questions
    usable = [question for question in questions if not question.answer_texts or is_aligned(question)]
    if not usable:
        raise UserError(f"{name}: no answer stands at its answer_start; run prepare_squad_pt.py on the file first")
    if len(usable) < len(questions):
        log_note(
            [
                f"{name}: {len(questions) - len(usable)} of {len(questions)} questions are left out of training, their "
                "answers do not stand at answer_start; prepare_squad_pt.py realigns most"
            ]
        )
    return usable


def window_parts(
    questions: dict[str, list[Question]],
    tokenizer: PreTrainedTokenizerFast | None,
    squad: QADataOptions,
    record: RunRecord,
) -> dict[str, Windows]:
    """Windows of every part; long questions that were cut are counted."""
    from adapter_qa.data.windows import make_windows

    began = time.perf_counter()
    parts: dict[str, Windows] = {}
    for part, found in questions.items():
        assert tokenizer is not None
        parts[part] = make_windows(
            found,
            tokenizer,
            max_seq_length=squad.max_seq_length,
            doc_stride=squad.doc_stride,
            description=f"{part} windows",
        )
        cut = parts[part].cut_questions
        record.document["data"][part] |= {"windows": len(parts[part]), "cut_questions": cut}
        if cut:
            log_note([f"{part}: {cut} questions were too long for the window and lost their end"])
    record.document["times"]["windows"] = round(time.perf_counter() - began, 3)
    return parts


def count_parts(
    questions: dict[str, list[Question]], windows: dict[str, Windows], run: TrainerArguments
) -> dict[str, dict[str, int]]:
    """Questions, windows and steps of training and evaluation, for the plan of a dry run."""
    from adapter_qa.training.workflow import eval_steps, train_steps

    sizes = {part: len(windows[part]) if part in windows else 0 for part in ("train", "eval")}
    steps = {"train": train_steps(sizes["train"], run), "eval": eval_steps(sizes["eval"], run)}
    return {
        part: {"questions": len(questions.get(part, [])), "windows": sizes[part], "steps": steps[part]}
        for part in ("train", "eval")
    }


def score(questions: Sequence[Question], answers: Answers, version_2: bool) -> dict[str, float]:
    """SQuAD metrics where gold answers are known: for v1 every question must have one.

    For v2, `best_f1` and `best_exact` with their thresholds are beside the scores at --null_score_diff_threshold. They
    are tuned on the very questions they are measured on.
    """
    if not version_2 and not all(question.answer_texts for question in questions):
        return {}
    scores = squad_metrics(answers.texts(), questions, version_2=version_2)
    if version_2:
        tuned = squad_metrics(answers.span_texts(), questions, version_2=True, null_odds=answers.null_odds)
        scores |= {name: value for name, value in tuned.items() if name.startswith("best_")}
    return scores


def make_trainer(
    bundle: ModelBundle,
    setup: AdapterSetup | None,
    squad: QADataOptions,
    fusion: FusionOptions,
    run: TrainerArguments,
    tokenizer: PreTrainedTokenizerFast,
    questions: dict[str, list[Question]],
    windows: dict[str, Windows],
    record: RunRecord,
) -> QuestionAnsweringTrainer:
    """The trainer with everything of this run in it."""
    from adapter_qa.data.window_dataset import WindowCollator
    from adapter_qa.training.workflow import run_callbacks
    from trainer_qa import QuestionAnsweringTrainer
    from utils_qa import choose_answers

    choose = partial(
        choose_answers,
        n_best_size=squad.n_best_size,
        version_2=squad.version_2_with_negative,
        null_score_diff_threshold=squad.null_score_diff_threshold,
    )
    collator = WindowCollator(
        pad_id=int(tokenizer.pad_token_id),
        left=tokenizer.padding_side == "left",
        length=squad.max_seq_length if squad.pad_to_max_length else None,
        multiple=8 if run.fp16 or run.bf16 else 1,
    )
    trainer = QuestionAnsweringTrainer(
        model=bundle.model,
        setup=setup,
        regularize_fusion=fusion.fusion_regularization,
        decay_fusion_values=fusion.fusion_decay_values,
        args=run,
        data_collator=collator,
        train_dataset=windows.get("train"),
        eval_dataset=windows.get("eval"),
        eval_questions=questions.get("eval", []),
        choose_answers=choose,
        score_answers=partial(score, version_2=squad.version_2_with_negative),
        n_best_size=squad.n_best_size,
        max_answer_length=squad.max_answer_length,
        padding_competes=squad.pad_to_max_length,
        bucketed=run.bucket_by_length and not squad.pad_to_max_length,
        callbacks=run_callbacks(run, record),
    )
    record.update(padding=trainer.padding())
    return trainer


if __name__ == "__main__":
    sys.exit(run_cli(main))
