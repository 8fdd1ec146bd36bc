#!/usr/bin/env python
"""Trains a named entity adapter, alone or on a language adapter, the base model frozen. The epoch with the best entity
F1 is kept.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import (
    AdapterOptions,
    LanguageAdapterOptions,
    ModelOptions,
    NERDataOptions,
    TrainingOptions,
)
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.validation import check_counts, check_files, check_run
from adapter_qa.core.cli import run_cli
from adapter_qa.core.distributed import destroy_process_group_on_exit
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import file_fingerprint
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import raise_on_signal
from adapter_qa.data.conll import OUTSIDE, Sentence, label_names, read_sentences
from adapter_qa.models.base_config import check_window, read_base_config
from adapter_qa.runs.run_record import RunRecord

if TYPE_CHECKING:  # torch and transformers wait inside the functions that need them: --help and mistakes take no time
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.token_classification import TokenClassificationDataset
    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.training.ner import NERTrainer
    from adapter_qa.training.training_args import TrainerArguments
    from adapter_qa.training.workflow import ModelBundle

PARTS = {"train": "train_file", "eval": "validation_file", "predict": "test_file"}
EXAMPLES = """\
  run_ner_adapter.py --model_name_or_path neuralmind/bert-base-portuguese-cased --do_train --do_eval \\
      --train_file train.conll --validation_file dev.conll --madx2 True --output_dir outputs/ner
  run_ner_adapter.py ner.yaml --load_lang_adapter outputs/mlm --weighted_loss True --next_sentence True
"""


@destroy_process_group_on_exit()
@raise_on_signal()
@report_resource_errors()
def main(argv: list[str]) -> int:
    """Table of contents of a run; returns the exit code."""
    model_options, entity, adapter, lang, run_options = read_options(argv)
    steps = partial(read_base_config, model_options), partial(read_parts, entity, run_options)
    base_config, (sentences, facts) = run_all(steps)
    check_window(entity.max_seq_length, "--max_seq_length", base_config)

    from adapter_qa.models import base_model
    from adapter_qa.models.adapter_setup import resolve_setup
    from adapter_qa.training import workflow

    setup = resolve_setup("ner", base_config, adapter, lang, random_init=model_options.random_init)
    names = known_labels(setup, sentences)
    data_name = entity.train_file or entity.validation_file or entity.test_file or "none"
    groups = (entity, adapter, lang)
    run, record = workflow.start_run("run_ner_adapter.py", argv, data_name, setup, model_options, run_options, *groups)
    if workflow.already_finished(record, run):
        return 0

    record.update(data=facts)
    tokenizer = base_model.load_tokenizer(model_options, split_words=True) if sentences else None
    pieces = make_parts(sentences, tokenizer, names, entity, record)
    about = {"labels": names, "max_seq_length": entity.max_seq_length, "language": adapter.language}
    bundle = workflow.build(record, model_options, setup, "ner", run, tokenizer, about, labels=names)
    if run.dry_run:
        workflow.print_dry_run(bundle, setup, count_parts(sentences, pieces, run))
        return 0

    assert tokenizer is not None
    trainer = make_trainer(bundle, setup, entity, run, tokenizer, names, pieces, record)
    if run.do_train:
        workflow.train(trainer, record)
        workflow.save_results(trainer, bundle, setup, record, tokenizer)
    if run.do_eval:
        workflow.record_metrics(trainer, record, "eval", trainer.evaluate())
    if run.do_predict:
        predict(trainer, sentences["predict"], pieces["predict"], record)
    workflow.finish(trainer, record)
    return 0


def read_options(argv: list[str]) -> tuple[Any, ...]:
    """Model, sentence, adapter, language adapter and run options, checked.

    Raises:
        UserError: every problem that the options alone show.
    """
    groups = (ModelOptions, NERDataOptions, AdapterOptions, LanguageAdapterOptions, TrainingOptions)
    options = ConfigParser(groups, str(__doc__), EXAMPLES).read(argv)
    entity, adapter, run = options[1], options[2], options[-1]
    problems = check_run(run, ("f1", "precision", "recall", "loss")) + check_files(entity)
    problems += check_counts(entity, ["max_train_samples", "max_eval_samples", "max_predict_samples"])
    problems += [
        f"--do_{part} needs --{file}"
        for part, file in PARTS.items()
        if vars(run)[f"do_{part}"] and vars(entity)[file] is None
    ]
    if entity.max_seq_length < 8:
        problems.append(f"--max_seq_length {entity.max_seq_length}: must be at least 8 tokens")
    if entity.weighted_loss_constant < 0:
        problems.append(f"--weighted_loss_constant {entity.weighted_loss_constant}: must not be negative")
    if not run.do_train and not run.dry_run and adapter.load_adapter is None:
        problems.append("without --do_train there is nothing to evaluate; give --load_adapter")
    if problems:
        raise UserError(problems)
    run.label_names = ["labels"]
    return options


def read_parts(entity: NERDataOptions, run: TrainingOptions) -> tuple[dict[str, list[Sentence]], dict[str, Any]]:
    """Sentences of each part of the run that is asked for; a dry run counts every file it is given.

    Returns:
        The sentences, and for run.json where they come from and how many they are, both by part.

    Raises:
        UserError: unreadable data, or no entity to train on.
    """
    paths = {
        part: vars(entity)[file]
        for part, file in PARTS.items()
        if vars(entity)[file] is not None and (vars(run)[f"do_{part}"] or run.dry_run)
    }
    steps = [partial(read_sentences, path, need_labels=part != "predict") for part, path in paths.items()]
    parts = {
        part: found[: vars(entity)[f"max_{part}_samples"]] for part, found in zip(paths, run_all(steps), strict=True)
    }
    if "train" in parts and label_names(parts["train"]) == [OUTSIDE]:
        raise UserError(f"{paths['train']}: names no entity, all its labels are {OUTSIDE}; there is nothing to learn")
    return parts, {part: file_fingerprint(paths[part]) | {"sentences": len(parts[part])} for part in parts}


def known_labels(setup: AdapterSetup | None, sentences: dict[str, list[Sentence]]) -> list[str]:
    """Labels of the saved adapter that is taken up, else those of the training sentences.

    Raises:
        UserError: evaluation sentences have labels that are not among them.
    """
    saved = setup.saved.head if setup is not None and setup.saved is not None and setup.loads_saved_head else None
    names = list(saved.labels) if saved is not None else label_names(sentences.get("train", []))
    strange = set(label_names([one for part in ("train", "eval") for one in sentences.get(part, [])])) - set(names)
    if strange:
        raise UserError(f"labels {', '.join(sorted(strange))} are not among those trained: {', '.join(names)}")
    return names


def make_parts(
    sentences: dict[str, list[Sentence]],
    tokenizer: PreTrainedTokenizerFast | None,
    names: list[str],
    entity: NERDataOptions,
    record: RunRecord,
) -> dict[str, TokenClassificationDataset]:
    """Encoder inputs of every part. What is scored is labelled on the first piece of each word, one sentence alone."""
    from adapter_qa.data.token_classification import tokenize_and_align_labels

    parts: dict[str, TokenClassificationDataset] = {}
    for part, found in sentences.items():
        assert tokenizer is not None
        training = part == "train"
        parts[part] = tokenize_and_align_labels(
            [Sentence(one.words, ()) for one in found] if part == "predict" else found,
            tokenizer,
            names,
            max_seq_length=entity.max_seq_length,
            label_all_tokens=training and entity.label_all_tokens,
            next_sentence=training and entity.next_sentence,
        )
        facts = {"inputs": len(parts[part]), "cut_sentences": parts[part].cut_sentences}
        record.document["data"][part] |= facts
    record.update()
    return parts


def count_parts(
    sentences: dict[str, list[Sentence]], pieces: dict[str, TokenClassificationDataset], run: TrainerArguments
) -> dict[str, dict[str, int]]:
    """Sentences, inputs and steps of training and evaluation, for the plan of a dry run."""
    from adapter_qa.training.workflow import eval_steps, train_steps

    sizes = {part: len(pieces[part]) if part in pieces else 0 for part in ("train", "eval")}
    steps = {"train": train_steps(sizes["train"], run), "eval": eval_steps(sizes["eval"], run)}
    return {
        part: {"sentences": len(sentences.get(part, [])), "inputs": sizes[part], "steps": steps[part]} for part in sizes
    }


def make_trainer(
    bundle: ModelBundle,
    setup: AdapterSetup | None,
    entity: NERDataOptions,
    run: TrainerArguments,
    tokenizer: PreTrainedTokenizerFast,
    names: list[str],
    pieces: dict[str, TokenClassificationDataset],
    record: RunRecord,
) -> NERTrainer:
    """The trainer with everything of this run in it; class weights are recorded."""
    from adapter_qa.data.token_classification import TokenClassificationCollator, class_weights
    from adapter_qa.training.ner import NERTrainer
    from adapter_qa.training.workflow import run_callbacks

    weights: np.ndarray | None = None
    if entity.weighted_loss and run.do_train:
        weights = class_weights(pieces["train"], len(names), entity.weighted_loss_constant)
        record.update(class_weights=dict(zip(names, weights.tolist(), strict=True)))
    return NERTrainer(
        model=bundle.model,
        setup=setup,
        names=names,
        weights=weights,
        args=run,
        data_collator=TokenClassificationCollator(
            pad_id=int(tokenizer.pad_token_id),
            has_types="token_type_ids" in tokenizer.model_input_names,
            multiple=8 if run.fp16 or run.bf16 else 1,
        ),
        train_dataset=pieces.get("train"),
        eval_dataset=pieces.get("eval"),
        bucketed=run.bucket_by_length,
        callbacks=run_callbacks(run, record),
    )


def predict(
    trainer: NERTrainer, sentences: list[Sentence], pieces: TokenClassificationDataset, record: RunRecord
) -> None:
    """Writes `predict_predictions.conll`: the words of the test file with predicted labels."""
    import numpy as np

    from adapter_qa.data.token_classification import sentence_labels

    trainer.scored = None
    rows = trainer.predict(pieces, metric_key_prefix="predict").predictions
    assert record.folder is not None
    labels = sentence_labels(np.asarray(rows), pieces, trainer.names)
    lines = [
        "".join(f"{word} {label}\n" for word, label in zip(sentence.words, predicted, strict=True))
        for sentence, predicted in zip(sentences, labels, strict=True)
    ]
    Path(record.folder / "predict_predictions.conll").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_cli(main))
