"""recipes/: every file is accepted by the script that its header names, and agrees with the shell scripts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.scripts import ROOT

from adapter_qa.config.options import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig
from adapter_qa.config.parser import parse_config

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PARSERS: dict[str, Callable[..., RunConfig]] = {
    "run_qa_adapter.py": partial(parse_config, QARunConfig),
    "run_ner_adapter.py": partial(parse_config, NERRunConfig),
    "run_mlm_adapter.py": partial(parse_config, MLMRunConfig),
}
# Settings of train_fusion_pt.sh by option, after the step's prefix.
SETTINGS = {
    "LR": "learning_rate", "BATCH": "per_device_train_batch_size", "GAS": "gradient_accumulation_steps",
    "EPS": "adam_epsilon", "EPOCHS": "num_train_epochs", "PATIENCE": "early_stopping_patience", "DECAY": "weight_decay",
    "REDUCTION": "adapter_reduction_factor", "C": "weighted_loss_constant",
}  # fmt: skip


def script_and_argv(recipe: Path) -> tuple[str, list[str]]:
    """Return the script and the arguments of the command in a recipe's header."""
    text = recipe.read_text(encoding="utf-8")
    (command,) = re.findall(r"^#   python (\S+\.py .*)$", text, re.MULTILINE)
    script, *argv = shlex.split(command)
    return script, argv


def read_recipe(recipe: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Parse and check the command in a recipe's header, in a folder with empty data files."""
    for name in re.findall(r"data/\S+", recipe.read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(folder)
    script, argv = script_and_argv(recipe)
    return PARSERS[script](argv, description="", examples="")


def test_every_script_has_a_recipe() -> None:
    assert {script_and_argv(recipe)[0] for recipe in RECIPES} == set(PARSERS)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_script_accepts_the_recipe(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, argv = script_and_argv(recipe)
    assert (ROOT / script).is_file()
    assert argv[0] == str(recipe.relative_to(ROOT))
    config = read_recipe(recipe, tmp_path, monkeypatch)
    assert config.training.do_train
    assert config.training.do_eval
    assert config.training.output_dir == f"outputs/{recipe.stem}"


@pytest.mark.parametrize("recipe", [path for path in RECIPES if path.stem != "full"], ids=lambda path: path.name)
def test_recipe_has_the_hyperparameters_of_the_shell_script(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_recipe(recipe, tmp_path, monkeypatch)
    options = {**vars(config.adapter), **vars(config.data), **vars(config.training)}
    text = (ROOT / "train_fusion_pt.sh").read_text(encoding="utf-8")
    settings = dict(re.findall(rf"\b{recipe.stem.upper()}_([A-Z]+)=\$\{{\w+:-([^}}]+)\}}", text))
    assert len(settings) >= 6
    assert {name: options[SETTINGS[name]] for name in settings} == {
        name: pytest.approx(float(value)) for name, value in settings.items()
    }
