#!/usr/bin/env python
"""Trains a language adapter (MAD-X: Pfeiffer + invertible) by masked language modelling, the base model frozen. The
epoch with the lowest evaluation loss is kept.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import AdapterOptions, MLMDataOptions, MLMTrainingOptions, ModelOptions
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.validation import check_counts, check_files, check_run
from adapter_qa.core.cli import run_cli
from adapter_qa.core.distributed import destroy_process_group_on_exit
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import file_fingerprint
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import raise_on_signal
from adapter_qa.data.text import read_texts
from adapter_qa.models.base_config import check_window, read_base_config
from adapter_qa.runs.run_record import RunRecord

if TYPE_CHECKING:  # torch and transformers wait inside the functions that need them: --help and mistakes take no time
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.training.mlm import MLMTrainer
    from adapter_qa.training.training_args import TrainerArguments
    from adapter_qa.training.workflow import ModelBundle

EXAMPLES = """\
  run_mlm_adapter.py --model_name_or_path neuralmind/bert-base-portuguese-cased --do_train --do_eval \\
      --train_file texts.txt --language pt --madx2 True --output_dir outputs/mlm
  run_mlm_adapter.py --model_name_or_path neuralmind/bert-base-portuguese-cased --do_eval \\
      --validation_file texts.txt --load_adapter outputs/mlm --output_dir outputs/mlm_eval
"""


@destroy_process_group_on_exit()
@raise_on_signal()
@report_resource_errors()
def main(argv: list[str]) -> int:
    """Table of contents of a run; returns the exit code."""
    model_options, text, adapter, run_options = read_options(argv)
    base_config, (texts, facts) = run_all([partial(read_base_config, model_options), partial(read_parts, text)])
    check_window(text.block_size, "--block_size", base_config)

    from adapter_qa.models import base_model
    from adapter_qa.models.adapter_setup import resolve_setup
    from adapter_qa.training import workflow

    setup = resolve_setup("mlm", base_config, adapter, random_init=model_options.random_init)
    data_name = text.train_file or text.validation_file or "none"
    groups = (text, adapter)
    run, record = workflow.start_run("run_mlm_adapter.py", argv, data_name, setup, model_options, run_options, *groups)
    if workflow.already_finished(record, run):
        return 0

    record.update(data=facts)
    tokenizer = base_model.load_tokenizer(model_options) if texts else None
    blocks = cut_blocks(texts, tokenizer, text, record)
    about = {"block_size": text.block_size, "language": adapter.language}
    bundle = workflow.build(record, model_options, setup, "mlm", run, tokenizer, about)
    if run.dry_run:
        workflow.print_dry_run(bundle, setup, count_parts(blocks, run))
        return 0

    assert tokenizer is not None
    trainer = make_trainer(bundle, setup, text, run, tokenizer, blocks, record)
    if run.do_train:
        workflow.train(trainer, record)
        workflow.save_results(trainer, bundle, setup, record, tokenizer)
    if run.do_eval:
        workflow.record_metrics(trainer, record, "eval", trainer.evaluate())
    workflow.finish(trainer, record)
    return 0


def read_options(argv: list[str]) -> tuple[Any, ...]:
    """Model, text, adapter and run options, checked.

    Raises:
        UserError: every problem that the options alone show.
    """
    groups = (ModelOptions, MLMDataOptions, AdapterOptions, MLMTrainingOptions)
    options = ConfigParser(groups, str(__doc__), EXAMPLES).read(argv)
    text, run = options[1], options[-1]
    problems = check_run(run, ("loss",)) + check_files(text)
    problems += check_counts(text, ["max_train_samples", "max_eval_samples"])
    if run.do_train and text.train_file is None:
        problems.append("--do_train needs --train_file")
    if run.do_eval and text.validation_file is None and text.train_file is None:
        problems.append("--do_eval needs --validation_file, or --train_file to take a share of")
    if run.do_predict:
        problems.append("--do_predict: a language adapter predicts nothing; leave it out")
    if not 0 < text.mlm_probability < 1:
        problems.append(f"--mlm_probability {text.mlm_probability}: must lie between 0 and 1, e.g. 0.15")
    if not 0 < text.validation_split_percentage < 100:
        problems.append(f"--validation_split_percentage {text.validation_split_percentage}: must lie between 0 and 100")
    if text.block_size < 8:
        problems.append(f"--block_size {text.block_size}: must be at least 8 tokens")
    if problems:
        raise UserError(problems)
    run.prediction_loss_only = True  # logits over the vocabulary are not wanted
    run.label_names = ["labels"]
    return options


def read_parts(text: MLMDataOptions) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Texts of the files that are given.

    Returns:
        Paragraphs, and for run.json where they come from, both by part.

    Raises:
        UserError: unreadable text.
    """
    files = {"train": text.train_file, "eval": text.validation_file}
    given = {part: path for part, path in files.items() if path is not None}
    texts = run_all(partial(read_texts, path) for path in given.values())
    return dict(zip(given, texts, strict=True)), {part: file_fingerprint(path) for part, path in given.items()}


def cut_blocks(
    texts: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast | None, text: MLMDataOptions, record: RunRecord
) -> dict[str, np.ndarray]:
    """Training and evaluation blocks, (blocks, block_size) int64 each; without an evaluation file, the last blocks of
    the training text are held out.

    Raises:
        UserError: too little text.
    """
    from adapter_qa.data.masked_lm import split_into_blocks

    if tokenizer is None:
        return {}
    blocks = {part: split_into_blocks(found, tokenizer, text.block_size) for part, found in texts.items()}
    facts = record.document["data"]
    if "eval" not in blocks:
        held_out = max(1, round(len(blocks["train"]) * text.validation_split_percentage / 100))
        if held_out >= len(blocks["train"]):
            raise UserError(f"{text.train_file}: {len(blocks['train'])} blocks cannot be split; give --validation_file")
        blocks["train"], blocks["eval"] = blocks["train"][:-held_out], blocks["train"][-held_out:]
        facts["eval"] = {"held_out_of": text.train_file}
    for part in blocks:
        blocks[part] = blocks[part][: vars(text)[f"max_{part}_samples"]]
        facts[part]["blocks"] = len(blocks[part])
    return blocks


def count_parts(blocks: dict[str, np.ndarray], run: TrainerArguments) -> dict[str, dict[str, int]]:
    """Blocks and steps of training and evaluation, for the plan of a dry run."""
    from adapter_qa.training.workflow import eval_steps, train_steps

    sizes = {part: len(blocks.get(part, ())) for part in ("train", "eval")}
    steps = {"train": train_steps(sizes["train"], run), "eval": eval_steps(sizes["eval"], run)}
    return {part: {"blocks": sizes[part], "steps": steps[part]} for part in sizes}


def make_trainer(
    bundle: ModelBundle,
    setup: AdapterSetup | None,
    text: MLMDataOptions,
    run: TrainerArguments,
    tokenizer: PreTrainedTokenizerFast,
    blocks: dict[str, np.ndarray],
    record: RunRecord,
) -> MLMTrainer:
    """The trainer with everything of this run in it."""
    from adapter_qa.data.masked_lm import MaskedLMDataset, make_fixed_mask_dataset
    from adapter_qa.training.mlm import MLMTrainer
    from adapter_qa.training.workflow import run_callbacks

    return MLMTrainer(
        model=bundle.model,
        setup=setup,
        tokenizer=tokenizer,
        mlm_probability=text.mlm_probability,
        args=run,
        train_dataset=MaskedLMDataset(blocks["train"]) if run.do_train else None,
        eval_dataset=make_fixed_mask_dataset(blocks["eval"], tokenizer, text.mlm_probability, run.seed)
        if run.do_eval
        else None,
        callbacks=run_callbacks(run, record),
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
