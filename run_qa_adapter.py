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
from adapter_qa.core.distributed import destroy_process_group_on_exit
from adapter_qa.core.errors import run_all
from adapter_qa.core.garbage_collection import no_garbage_collection
from adapter_qa.core.library_notices import silenced_training
from adapter_qa.core.messages import print_main
from adapter_qa.core.process_state import restored_process
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import raise_on_signal
from adapter_qa.models.base_config import check_window, read_base_config
from adapter_qa.training.qa_data import QuestionSplit, load_questions, make_split_windows
from adapter_qa.training.saved_model_options import with_saved_model_options

if TYPE_CHECKING:  # torch and transformers are imported inside functions: --help and option errors take no time
    from adapter_qa.data.window_dataset import QuestionDataset
    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.training.run_context import ModelBundle, RunContext
    from trainer_qa import QuestionAnsweringTrainer

SCRIPT = "run_qa_adapter.py"
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


@destroy_process_group_on_exit()
@raise_on_signal()
@report_resource_errors()
@silenced_training()
def execute(argv: list[str]) -> RunContext[QARunConfig]:
    """Run a command line, and return the run as it began; its results are in the folder of its record."""
    config = with_saved_model_options(parse_config(QARunConfig, argv, description=str(__doc__), examples=EXAMPLES))
    if not config.is_cross_validation or config.training.dry_run:
        return execute_once(argv, config)
    with restored_process(sys.argv[0]):
        run, _ = begin(argv, config)
    from adapter_qa.training.cross_validation import run_folds

    run_folds(run, config, lambda fold: execute_once([*argv, "--fold", str(fold.data.fold)], fold))
    return run


def execute_once(argv: list[str], config: QARunConfig) -> RunContext[QARunConfig]:
    """Run what is not a cross-validation; in a dry run its first fold stands for it."""
    run, splits = begin(argv, config)
    from adapter_qa.training import workflow

    if not workflow.is_finished(run):
        with workflow.failure_recorded(run):
            train_and_evaluate(run, splits)
    return run


def begin(argv: list[str], config: QARunConfig) -> tuple[RunContext[QARunConfig], dict[str, QuestionSplit]]:
    """Load the data, decide the setup, and open the folder of the run."""
    base_config, splits = run_all(lambda: read_base_config(config.model), lambda: load_questions(config))

    with no_garbage_collection():
        from adapter_qa.models.setup_decisions import check_head, resolve_setup
        from adapter_qa.training.run_start import check_data_unchanged, start_run

    def decide() -> AdapterSetup | None:
        random_init = config.model.random_init
        return resolve_setup(
            "qa", base_config, config.adapter, config.language_adapter, config.fusion, random_init=random_init
        )

    length = config.data.max_seq_length
    setup, _ = run_all(decide, lambda: check_window(length, "--max_seq_length", base_config))
    check_head(setup, config.training)
    run = start_run(SCRIPT, argv, config, setup, base_config)
    check_data_unchanged(run, {name: split.source for name, split in splits.items()})
    return run, splits


def train_and_evaluate(run: RunContext[QARunConfig], splits: dict[str, QuestionSplit]) -> None:
    """Run the steps from the windows to the results."""
    from adapter_qa.models.metadata import answering_options
    from adapter_qa.training import calibration, run_messages, workflow
    from adapter_qa.training.cross_validation import print_folds

    config = run.config
    run.record.update(data={name: split.source for name, split in splits.items()})
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
    with run_messages.shown_progress(run, trainer):
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
            workflow.record_metrics(run, trainer, "eval", metrics)
            if trainer.calibration is not None:
                print_main(calibration.gain_text(metrics))
            if config.data.version_2_with_negative:
                run.record.update(best_thresholds=TUNED_THRESHOLDS)
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
    run.record.update(padding=trainer.padding())
    return trainer


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())
