#!/usr/bin/env python
"""Train, evaluate and predict with a model for extractive question answering.

The model is fully fine-tuned, or has a QA adapter, a QA adapter on a language adapter, or a fusion of adapters. The
epoch with the best F1 is kept.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.cli import run_cli
from adapter_qa.core.errors import run_all
from adapter_qa.core.garbage_collection import no_garbage_collection
from adapter_qa.core.messages import print_main
from adapter_qa.core.process_state import restored_process
from adapter_qa.models.base_config import read_base_config
from adapter_qa.training.process import training_process
from adapter_qa.training.qa_data import load_questions, make_split_windows
from adapter_qa.training.question_splits import QuestionSplit
from adapter_qa.training.saved_model_options import with_saved_model_options

if TYPE_CHECKING:  # torch and transformers are imported inside functions: --help and option errors take no time
    from adapter_qa.data.window_dataset import QuestionDataset
    from adapter_qa.training.run_context import ModelBundle, RunContext
    from trainer_qa import QuestionAnsweringTrainer

EXAMPLES = """\
  run_qa_adapter.py --model_name_or_path neuralmind/bert-base-portuguese-cased \\
      --do_train --do_eval --train_file pt_squad-train-v1.1.json \\
      --validation_file pt_squad-dev-v1.1.json --output_dir outputs/qa
  run_qa_adapter.py recipes/fusion.yaml --learning_rate 1e-4 \\
      --load_lang_adapter outputs/mlm \\
      --fuse_adapters qa=outputs/qa ner=outputs/ner
"""

TUNED_THRESHOLDS = "tuned on the evaluation questions themselves: an upper bound, no result"


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    execute(argv)
    return 0


@training_process()
def execute(argv: list[str]) -> RunContext[QARunConfig]:
    """Run a command line, and return the run as it began; its results are in the folder of its record."""
    config = with_saved_model_options(parse_config(QARunConfig, argv, description=str(__doc__), examples=EXAMPLES))
    if config.is_cross_validation and not config.training.dry_run:  # in a dry run its first fold stands for it
        return cross_validate(argv, config)
    return train_once(argv, config)


def cross_validate(argv: list[str], config: QARunConfig) -> RunContext[QARunConfig]:
    """Train once for each fold, in a folder below that of the cross-validation, and score all answers together."""
    with restored_process(sys.argv[0]):
        run, _ = prepare(argv, config)
    from adapter_qa.training.cross_validation import run_folds

    run_folds(run, config, lambda fold: train_once([*argv, "--fold", str(fold.data.fold)], fold))
    return run


def train_once(argv: list[str], config: QARunConfig) -> RunContext[QARunConfig]:
    """Take all steps of a run that is no cross-validation, unless it is finished."""
    run, splits = prepare(argv, config)
    from adapter_qa.training import workflow

    workflow.run_unless_finished(run, lambda: train_and_evaluate(run, splits))
    return run


def prepare(argv: list[str], config: QARunConfig) -> tuple[RunContext[QARunConfig], dict[str, QuestionSplit]]:
    """Load the data, decide the setup, and choose the folder of the run; nothing is written yet."""
    base_config, splits = run_all(lambda: read_base_config(config.model), lambda: load_questions(config))
    with no_garbage_collection():  # torch and transformers; errors in options and data do not wait for them
        from adapter_qa.training.run_start import decide_setup, start_run

    setup = decide_setup("qa", config, base_config)
    sources = {name: split.source for name, split in splits.items()}
    return start_run("run_qa_adapter.py", argv, config, setup, base_config, sources), splits


def train_and_evaluate(run: RunContext[QARunConfig], splits: dict[str, QuestionSplit]) -> None:
    """Run the steps from the windows to the results."""
    from adapter_qa.models.metadata import answering_options
    from adapter_qa.training import calibration, run_messages, workflow
    from adapter_qa.training.cross_validation import print_folds

    config = run.config
    base = workflow.load_base(run, has_data=bool(splits))
    datasets = {} if base.tokenizer is None else make_split_windows(splits, base.tokenizer, config, run.record)
    metadata = {"windows": answering_options(config.data).document(), "language": config.adapter.language}
    bundle = workflow.build_model(run, "qa", base, metadata)
    if config.training.dry_run:
        questions = {name: dataset.questions for name, dataset in datasets.items()}
        folds = print_folds(config) if config.data.folds is not None else None
        run_messages.print_dry_run(run, bundle, {"questions": questions, "windows": datasets}, folds)
        return

    trainer = make_trainer(run, bundle, datasets)
    run_messages.print_plan(run, bundle)
    with workflow.running(run, trainer):
        if config.training.do_train:
            workflow.train(run, trainer)
        if "calibration" in datasets:
            fitted, before = trainer.calibrate(datasets["calibration"])
            calibration.record_calibration(run, trainer, fitted, before)
            bundle = replace(bundle, metadata={**bundle.metadata, "windows": trainer.options.document()})
        if config.training.do_train or trainer.calibration is not None:
            workflow.save_model(run, bundle, trainer)
        if config.training.do_eval:
            metrics = trainer.evaluate()
            if config.data.version_2_with_negative:
                run.record.document.best_thresholds = TUNED_THRESHOLDS
            workflow.record_metrics(run, trainer, "eval", metrics)
            if trainer.calibration is not None:
                print_main(calibration.gain_text(metrics))
        if config.training.do_predict:
            _, metrics = trainer.answer(datasets["predict"], "predict")
            workflow.record_metrics(run, trainer, "predict", metrics)
    workflow.finish_run(run, trainer)


def make_trainer(
    run: RunContext[QARunConfig], bundle: ModelBundle, datasets: dict[str, QuestionDataset]
) -> QuestionAnsweringTrainer:
    """Return the trainer of a run, and record the share of padding."""
    from adapter_qa.models.metadata import answering_options
    from adapter_qa.training.callbacks import make_callbacks
    from trainer_qa import QuestionAnsweringTrainer, make_collator

    data = run.config.data
    trainer = QuestionAnsweringTrainer(
        model=bundle.model,
        setup=run.setup,
        options=answering_options(data),
        pad_to_max_length=data.pad_to_max_length,
        fusion=run.config.fusion,
        bucketed=run.args.bucket_by_length and not data.pad_to_max_length,
        args=run.args,
        data_collator=make_collator(bundle.tokenizer, data, run.args),
        train_dataset=datasets.get("train"),
        eval_dataset=datasets.get("eval"),
        callbacks=make_callbacks(run.args, run.record),
    )
    run.record.document.padding = trainer.padding()
    return trainer


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())
