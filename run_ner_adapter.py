#!/usr/bin/env python
"""Train a NER adapter, alone or on a language adapter, with the base model frozen.

The epoch with the best entity F1 is kept.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import NERRunConfig
from adapter_qa.core.cli import run_cli
from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.errors import run_all
from adapter_qa.core.files import write_text
from adapter_qa.core.garbage_collection import no_garbage_collection
from adapter_qa.core.messages import print_main
from adapter_qa.data.label_schemes import begin_entities
from adapter_qa.data.readers.sentences import Sentence, format_sentences
from adapter_qa.models.base_config import read_base_config
from adapter_qa.runs.layout import predictions_file
from adapter_qa.training.ner_data import KnownLabels, SentenceSplit, known_labels, load_sentences, make_split_inputs
from adapter_qa.training.process import training_process
from adapter_qa.training.saved_model_options import with_saved_model_options

if TYPE_CHECKING:  # torch and transformers are imported inside functions: --help and option errors take no time
    import numpy as np

    from adapter_qa.data.token_classification import TokenClassificationDataset
    from adapter_qa.training.ner import NERTrainer
    from adapter_qa.training.run_context import ModelBundle, RunContext

EXAMPLES = """\
  run_ner_adapter.py \\
      --model_name_or_path neuralmind/bert-base-portuguese-cased \\
      --do_train --do_eval \\
      --train_file train.conll --validation_file dev.conll \\
      --madx2 True --output_dir outputs/ner
  run_ner_adapter.py recipes/ner.yaml --load_lang_adapter outputs/mlm \\
      --weighted_loss True --next_sentence True
"""


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    execute(argv)
    return 0


@training_process()
def execute(argv: list[str]) -> RunContext[NERRunConfig]:
    """Run a command line, and return the run as it began; its results are in the folder of its record."""
    config = with_saved_model_options(parse_config(NERRunConfig, argv, description=str(__doc__), examples=EXAMPLES))
    base_config, splits = run_all(lambda: read_base_config(config.model), lambda: load_sentences(config))
    with no_garbage_collection():  # torch and transformers; errors in options and data do not wait for them
        from adapter_qa.training import run_start, workflow

    setup = run_start.decide_setup("ner", config, base_config)
    labels = known_labels(setup, splits)
    sources = {name: split.source for name, split in splits.items()}
    run = run_start.start_run("run_ner_adapter.py", argv, config, setup, base_config, sources)
    workflow.run_unless_finished(run, lambda: train_and_evaluate(run, splits, labels))
    return run


def train_and_evaluate(run: RunContext[NERRunConfig], splits: dict[str, SentenceSplit], labels: KnownLabels) -> None:
    """Run the steps from the inputs to the results."""
    from adapter_qa.training import run_messages, workflow

    config = run.config
    base = workflow.load_base(run, has_data=bool(splits), split_words=True)
    inputs = {} if base.tokenizer is None else make_split_inputs(splits, base.tokenizer, labels, config, run.record)
    metadata = {
        "labels": labels.names,
        "max_seq_length": config.data.max_seq_length,
        "language": config.adapter.language,
    }
    bundle = workflow.build_model(run, "ner", base, metadata, labels.names)
    if config.training.dry_run:
        sentences = {name: split.sentences for name, split in splits.items()}
        run_messages.print_dry_run(run, bundle, {"sentences": sentences, "inputs": inputs})
        return

    trainer = make_trainer(run, bundle, labels, inputs)
    run_messages.print_plan(run, bundle)
    with workflow.running(run, trainer):
        if config.training.do_train:
            workflow.train(run, trainer)
            workflow.save_model(run, bundle, trainer)
        if config.training.do_eval:
            workflow.record_metrics(run, trainer, "eval", trainer.evaluate())
        if config.training.do_predict:
            write_predictions(trainer, splits["predict"].sentences, inputs["predict"])
    workflow.finish_run(run, trainer)


def make_trainer(
    run: RunContext[NERRunConfig],
    bundle: ModelBundle,
    labels: KnownLabels,
    inputs: dict[str, TokenClassificationDataset],
) -> NERTrainer:
    """Return the trainer of a run; with --weighted_loss, record the weights of the classes."""
    from adapter_qa.data.token_classification import TokenClassificationCollator, class_weights
    from adapter_qa.training.callbacks import make_callbacks
    from adapter_qa.training.ner import NERTrainer

    data, tokenizer = run.config.data, bundle.tokenizer
    weights: np.ndarray | None = None
    if data.weighted_loss and run.args.do_train:
        weights = class_weights(inputs["train"], len(labels.names), data.weighted_loss_constant)
        run.record.document.class_weights = dict(zip(labels.names, weights.tolist(), strict=True))
    return NERTrainer(
        model=bundle.model,
        setup=run.setup,
        names=labels.names,
        unseen=labels.unseen,
        weights=weights,
        bucketed=run.args.bucket_by_length,
        args=run.args,
        data_collator=TokenClassificationCollator(
            pad_id=int(tokenizer.pad_token_id),
            has_types="token_type_ids" in tokenizer.model_input_names,
            multiple=run.args.padding_multiple,
        ),
        train_dataset=inputs.get("train"),
        eval_dataset=inputs.get("eval"),
        callbacks=make_callbacks(run.args, run.record),
    )


def write_predictions(trainer: NERTrainer, sentences: list[Sentence], inputs: TokenClassificationDataset) -> None:
    """Write `predict_predictions.conll`: the words of the test file with predicted labels in IOB2."""
    labels = trainer.predict_labels(inputs)
    predicted = [
        Sentence(sentence.words, begin_entities(of_sentence))
        for sentence, of_sentence in zip(sentences, labels, strict=True)
    ]
    path = trainer.folder / predictions_file("predict", ".conll")
    on_main_process(lambda: write_text(path, format_sentences(predicted)))
    print_main(f"prediction: {path}")


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())
