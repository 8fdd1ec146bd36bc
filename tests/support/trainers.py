"""A fused model and its trainer on the tiny base model, and the command line of a short fusion run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from support.questions import make_questions
from support.scripts import override
from transformers import AutoTokenizer, PreTrainedModel, set_seed

from adapter_qa.config.options import AdapterOptions, FusionOptions, ModelOptions, TrainingOptions
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.questions import Question
from adapter_qa.data.window_dataset import QuestionDataset, WindowCollator, pair_tokenizer
from adapter_qa.data.windows import make_windows
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.training.training_args import resolve_training_args
from trainer_qa import QuestionAnsweringTrainer


def copy_without_dropout(base: Path, folder: Path) -> Path:
    """Copy a base model to a folder, set its dropout to 0 and return the folder."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make_fused_model(base: Path) -> tuple[PreTrainedModel, AdapterSetup]:
    """Build a fusion of two new adapters; their weights differ enough for unequal attention."""
    options = ModelOptions(str(base), random_init=True)
    fusion = FusionOptions(fuse_adapters=["qa=new", "ner=new"])
    setup = resolve_setup("qa", read_base_config(options), AdapterOptions(), None, fusion, random_init=True)
    assert setup is not None
    set_seed(3)
    model = load_model(options, "qa")
    build_setup(model, setup)
    for name, weight in model.named_parameters():
        if ".adapters." in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model, setup


def make_trainer(base: Path, folder: Path, scores: Sequence[float], **options: Any) -> QuestionAnsweringTrainer:
    """Make a trainer whose evaluations have the given F1 scores, in order.

    Args:
        base: folder of the base model.
        folder: folder of the run.
        scores: F1 scores of the evaluations.
        options: training options, and the trainer's arguments `fusion` and `callbacks`.
    """
    model, setup = make_fused_model(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    remaining_scores = iter(scores)
    trainer_options = {name: options.pop(name) for name in ("fusion", "callbacks") if name in options}
    args = resolve_training_args(
        TrainingOptions(
            output_dir=str(folder), do_train=True, do_eval=True, report_to=[], disable_tqdm=True, learning_rate=1e-2,
            greater_is_better=True, **{"per_device_train_batch_size": 4, **options},
        )
    )  # fmt: skip

    class ScriptedTrainer(QuestionAnsweringTrainer):
        def official_scores(self, questions: Sequence[Question], answers: Answers) -> dict[str, float]:
            return {"f1": next(remaining_scores)}

    def make_dataset(questions: list[Question]) -> QuestionDataset:
        windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=64, doc_stride=16)
        return QuestionDataset(questions, windows)

    return ScriptedTrainer(
        model=model,
        setup=setup,
        args=args,
        options=AnsweringOptions(64, 16, n_best_size=5, max_answer_length=10),
        data_collator=WindowCollator(int(tokenizer.pad_token_id), False),
        train_dataset=make_dataset(make_questions(12, 1)),
        eval_dataset=make_dataset(make_questions(4, 2)),
        **trainer_options,
    )


def fusion_command(base: Path, files: tuple[Path, Path], folder: Path, *argv: str) -> list[str]:
    """Return the command line of a fusion run of 4 epochs of 3 steps, changed by the options of `argv`."""
    command = [
        "--model_name_or_path", str(base), "--random_init", "True", "--fuse_adapters", "qa=new", "ner=new",
        "--train_file", str(files[0]), "--validation_file", str(files[1]), "--do_train", "--do_eval",
        "--num_train_epochs", "4", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2",
        "--learning_rate", "1e-2", "--max_seq_length", "64", "--doc_stride", "16", "--disable_tqdm", "True",
        "--report_to", "none", "--output_dir", str(folder),
    ]  # fmt: skip
    return override(command, *argv)
