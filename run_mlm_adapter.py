#!/usr/bin/env python
"""Train a language adapter (MAD-X: Pfeiffer + invertible) by masked language modelling, with the base model frozen.

The epoch with the lowest evaluation loss is kept.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import MLMRunConfig
from adapter_qa.core.cli import run_cli
from adapter_qa.core.errors import run_all
from adapter_qa.core.garbage_collection import no_garbage_collection
from adapter_qa.models.base_config import read_base_config
from adapter_qa.training.mlm_data import TextSplit, load_texts, make_split_blocks
from adapter_qa.training.process import training_process
from adapter_qa.training.saved_model_options import with_saved_model_options

if TYPE_CHECKING:  # torch and transformers are imported inside functions: --help and option errors take no time
    import numpy as np

    from adapter_qa.training.mlm import MLMTrainer
    from adapter_qa.training.run_context import ModelBundle, RunContext

EXAMPLES = """\
  run_mlm_adapter.py \\
      --model_name_or_path neuralmind/bert-base-portuguese-cased \\
      --do_train --do_eval --train_file texts.txt --language pt --madx2 True \\
      --output_dir outputs/mlm
  run_mlm_adapter.py \\
      --model_name_or_path neuralmind/bert-base-portuguese-cased \\
      --do_eval --validation_file texts.txt --load_adapter outputs/mlm \\
      --output_dir outputs/mlm_eval
"""


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    execute(argv)
    return 0


@training_process()
def execute(argv: list[str]) -> RunContext[MLMRunConfig]:
    """Run a command line, and return the run as it began; its results are in the folder of its record."""
    config = with_saved_model_options(parse_config(MLMRunConfig, argv, description=str(__doc__), examples=EXAMPLES))
    base_config, texts = run_all(lambda: read_base_config(config.model), lambda: load_texts(config))
    with no_garbage_collection():  # torch and transformers; errors in options and data do not wait for them
        from adapter_qa.training import run_start, workflow

    setup = run_start.decide_setup("mlm", config, base_config)
    sources = {name: split.source for name, split in texts.items()}
    run = run_start.start_run("run_mlm_adapter.py", argv, config, setup, base_config, sources)
    workflow.run_unless_finished(run, lambda: train_and_evaluate(run, texts))
    return run


def train_and_evaluate(run: RunContext[MLMRunConfig], texts: dict[str, TextSplit]) -> None:
    """Run the steps from the blocks to the results."""
    from adapter_qa.training import run_messages, workflow

    config = run.config
    base = workflow.load_base(run, has_data=bool(texts))
    blocks = {} if base.tokenizer is None else make_split_blocks(texts, base.tokenizer, config, run.record)
    metadata = {"block_size": config.data.block_size, "language": config.adapter.language}
    bundle = workflow.build_model(run, "mlm", base, metadata)
    if config.training.dry_run:
        run_messages.print_dry_run(run, bundle, {"blocks": blocks})
        return

    trainer = make_trainer(run, bundle, blocks)
    run_messages.print_plan(run, bundle)
    with workflow.running(run, trainer):
        if config.training.do_train:
            workflow.train(run, trainer)
            workflow.save_model(run, bundle, trainer)
        if config.training.do_eval:
            workflow.record_metrics(run, trainer, "eval", trainer.evaluate())
    workflow.finish_run(run, trainer)


def make_trainer(run: RunContext[MLMRunConfig], bundle: ModelBundle, blocks: dict[str, np.ndarray]) -> MLMTrainer:
    """Return the trainer of a run. Evaluation blocks are masked once, so that losses of epochs are comparable."""
    from adapter_qa.data.masked_lm import MaskedLMDataset, make_fixed_mask_dataset
    from adapter_qa.training.callbacks import make_callbacks
    from adapter_qa.training.mlm import MLMTrainer

    args, probability, tokenizer = run.args, run.config.data.mlm_probability, bundle.tokenizer
    train = MaskedLMDataset(blocks["train"]) if args.do_train else None
    dev = make_fixed_mask_dataset(blocks["eval"], tokenizer, probability, args.seed) if args.do_eval else None
    return MLMTrainer(
        model=bundle.model,
        setup=run.setup,
        tokenizer=tokenizer,
        mlm_probability=probability,
        args=args,
        train_dataset=train,
        eval_dataset=dev,
        callbacks=make_callbacks(args, run.record),
    )


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())
