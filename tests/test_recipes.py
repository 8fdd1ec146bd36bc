"""recipes/: every file is accepted by the script that its header names, and agrees with the shell scripts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.scripts import ROOT

from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig


def relative_name(recipe: Path) -> str:
    """Return a recipe's path in its folder."""
    return str(recipe.relative_to(ROOT / "recipes"))


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


def commands(recipe: Path) -> list[list[str]]:
    """Return the commands in a recipe's header as words, each from its script on."""
    text = recipe.read_text(encoding="utf-8").replace("\\\n#", "")
    return [shlex.split(command) for command in re.findall(r"^#   python (\S+\.py .*)$", text, re.MULTILINE)]


def script_and_argv(recipe: Path) -> tuple[str, list[str]]:
    """Return the script and the arguments of the command in a recipe's header that takes the recipe."""
    ((script, *argv),) = [words for words in commands(recipe) if words[1] == str(recipe.relative_to(ROOT))]
    return script, argv


def make_data(recipe: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with the recipes and empty data files."""
    for name in re.findall(r"data/\S+", recipe.read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(folder)


def read_recipe(recipe: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Parse and check the command in a recipe's header that takes the recipe."""
    make_data(recipe, folder, monkeypatch)
    script, argv = script_and_argv(recipe)
    return PARSERS[script](argv, description="", examples="")


def test_every_script_has_a_recipe() -> None:
    assert {script_and_argv(recipe)[0] for recipe in RECIPES} == set(PARSERS)


@pytest.mark.parametrize("recipe", RECIPES, ids=relative_name)
def test_script_accepts_the_recipe(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, argv = script_and_argv(recipe)
    assert (ROOT / script).is_file()
    assert argv[0] == str(recipe.relative_to(ROOT))
    config = read_recipe(recipe, tmp_path, monkeypatch)
    assert config.training.do_train
    assert config.training.do_eval
    assert config.training.output_dir == f"outputs/{recipe.stem}"


@pytest.mark.parametrize("recipe", RECIPES, ids=relative_name)
def test_commands_of_a_recipe_make_what_the_next_one_loads(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(recipe, tmp_path, monkeypatch)
    made: list[str | None] = []
    chain = commands(recipe)
    for script, *argv in chain:
        config = PARSERS[script](argv, description="", examples="")
        language = config.language_adapter.load_lang_adapter if not isinstance(config, MLMRunConfig) else None
        if len(chain) > 1:
            assert {language, config.adapter.load_adapter} - {None} <= {*made}
        made.append(config.training.output_dir)
    assert len({*made}) == len(chain)


@pytest.mark.parametrize(
    "recipe",
    [*(ROOT / "recipes" / "reference_2021").glob("*.yaml"), ROOT / "recipes" / "zero_shot_en_pt.yaml"],
    ids=relative_name,
)
def test_recipe_has_the_hyperparameters_of_the_shell_script(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_recipe(recipe, tmp_path, monkeypatch)
    options = {**vars(config.adapter), **vars(config.data), **vars(config.training)}
    text = (ROOT / "train_fusion_pt.sh").read_text(encoding="utf-8")
    step = {"zero_shot_en_pt": "QA"}.get(recipe.stem, recipe.stem.upper())
    settings = dict(re.findall(rf"\b{step}_([A-Z]+)=\$\{{\w+:-([^}}]+)\}}", text))
    assert len(settings) >= 6
    assert {name: options[SETTINGS[name]] for name in settings} == {
        name: pytest.approx(float(value)) for name, value in settings.items()
    }
