"""The generated options of the library (adapter_qa/config/training_options.py).

Oracle: the installed `transformers.TrainingArguments`, and the library's own parser of it.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from support.generate_training_options import LEFT_OUT, generate
from transformers import HfArgumentParser, TrainingArguments

from adapter_qa.config import training_options
from adapter_qa.config.training_options import LibraryTrainingOptions


def default_of(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def test_committed_file_is_what_the_generator_prints() -> None:
    assert Path(training_options.__file__).read_text(encoding="utf-8") == generate()


def test_names_defaults_choices_and_help_are_the_librarys() -> None:
    library = {field.name: field for field in fields(TrainingArguments) if field.name not in LEFT_OUT}
    generated = {field.name: field for field in fields(LibraryTrainingOptions)}
    assert list(generated) == list(library)
    for name, field in generated.items():
        assert default_of(field) == default_of(library[name]), name
        assert field.metadata["help"] == library[name].metadata["help"], name
        assert tuple(field.metadata.get("choices", ())) == tuple(library[name].metadata.get("choices", ())), name


def test_options_are_parsed_as_the_librarys_parser_does() -> None:
    parsers = HfArgumentParser(LibraryTrainingOptions), HfArgumentParser(TrainingArguments)  # type: ignore[arg-type]
    actions, library_actions = (
        {
            tuple(action.option_strings): (action.dest, action.nargs, tuple(action.choices or ()), action.const)
            for action in parser._actions
            if action.dest not in LEFT_OUT
        }
        for parser in parsers
    )
    assert len(actions) > 100
    assert actions == library_actions


def test_words_of_options_become_the_values_that_the_library_makes() -> None:
    argv = ["--lr_scheduler_type", "cosine", "--debug", "underflow_overflow", "--optim", "sgd", "--report_to", "none"]
    argv += ["--fsdp", "full_shard", "--label_names", "a", "b", "--include_num_input_tokens_seen", "yes"]
    argv += [
        "--deepspeed",
        "ds.json",
        "--gradient_checkpointing_kwargs",
        "{}",
        "--data_seed",
        "3",
        "--eval_steps",
        "0.5",
    ]
    ours, theirs = (
        HfArgumentParser(cls).parse_args(argv)  # type: ignore[arg-type]
        for cls in (LibraryTrainingOptions, TrainingArguments)
    )
    assert {name: value for name, value in vars(theirs).items() if name not in LEFT_OUT} == vars(ours)
