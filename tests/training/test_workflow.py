"""How runs end, and what their results say about it (adapter_qa/training/workflow.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.problems import problems_of
from support.scripts import override, run_main
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    ModelOptions,
    QADataOptions,
    TrainingOptions,
)
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.errors import Interrupted, RunError
from adapter_qa.training import ner, run_start, workflow
from trainer_qa import QuestionAnsweringTrainer

SCRIPTS = {"qa": run_qa_adapter.main, "ner": run_ner_adapter.main, "mlm": run_mlm_adapter.main}
SENTENCES = "Ana B-PER\nnasceu O\nem O\nRecife B-LOC\n\n" * 12
Commands = dict[str, list[str]]


@pytest.fixture(scope="module")
def commands(tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """Return a training with evaluation for each script, three epochs of two steps."""
    sentences = tmp_path_factory.mktemp("data") / "sentences.conll"
    sentences.write_text(SENTENCES, encoding="utf-8")
    train, dev = map(str, squad_files)
    sizes = ["--max_seq_length", "64"]
    data = {
        "qa": ["--train_file", train, "--validation_file", dev, *sizes, "--doc_stride", "16"],
        "ner": ["--train_file", str(sentences), "--validation_file", str(sentences), *sizes],
        "mlm": ["--train_file", train, "--validation_file", dev, "--block_size", "32"],
    }
    limits = ["--max_train_samples", "8", "--max_eval_samples", "4", "--per_device_train_batch_size", "4"]
    shared = ["--model_name_or_path", str(tiny_bert), "--do_train", "--do_eval", "--num_train_epochs", "3"]
    shared += ["--report_to", "none", "--disable_tqdm", "True", *limits]
    return {script: [*shared, *words] for script, words in data.items()}


def read_run(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return document


# ---------------------------------------------------------------- runs that fail


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*args: object, **kwargs: object) -> None:
        raise error

    return function


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (KeyError("prelu"), "failed", ["KeyError: 'prelu'"]),
        (RuntimeError("shapes differ\nmore"), "failed", ["RuntimeError: shapes differ"]),
        (AssertionError(), "failed", ["AssertionError: AssertionError"]),
        (SystemExit(3), "failed", ["SystemExit: 3"]),
        (RunError(["a", "b"]), "failed", ["a", "b"]),
        (KeyboardInterrupt(), "interrupted", ["KeyboardInterrupt: KeyboardInterrupt"]),
        (Interrupted(15, "by SIGTERM"), "interrupted", ["by SIGTERM"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_run_that_ends_by_an_exception_says_why(
    script: str, error: BaseException, status: str, why: list[str], commands: Commands, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The exception comes as soon as the record is written."""
    monkeypatch.setattr(workflow, "parameter_table", raising(error))
    with pytest.raises(type(error)):
        SCRIPTS[script]([*commands[script], "--output_dir", str(tmp_path / "run")])
    run = read_run(tmp_path / "run")
    assert (run["status"], run["why"]) == (status, why)


@pytest.mark.parametrize(
    "step", ["make_trainer", "workflow.train", "workflow.save_model", "evaluate", "workflow.record_metrics", "answer"]
)
def test_every_step_is_covered(
    step: str, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squad_files: tuple[Path, Path]
) -> None:
    if step.startswith("workflow."):
        monkeypatch.setattr(workflow, step.removeprefix("workflow."), raising(ZeroDivisionError(step)))
    else:
        owner = run_qa_adapter if step == "make_trainer" else QuestionAnsweringTrainer
        monkeypatch.setattr(owner, step, raising(ZeroDivisionError(step)))
    monkeypatch.setattr(workflow, "is_finished", lambda run: False)
    argv = override(commands["qa"], "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no")
    with pytest.raises(ZeroDivisionError):
        run_qa_adapter.main([*argv, "--do_predict", "--test_file", str(squad_files[1]), "--output_dir", str(tmp_path)])
    run = read_run(tmp_path)
    assert (run["status"], run["why"]) == ("failed", [f"ZeroDivisionError: {step}"])


def test_a_failure_after_the_end_leaves_the_run_finished(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "_push_if_asked", raising(RunError("no network")))
    argv = override(commands["mlm"], "--max_steps", "1", "--output_dir", str(tmp_path))
    with pytest.raises(RunError):
        run_mlm_adapter.main(argv)
    assert read_run(tmp_path)["status"] == "finished"


# ---------------------------------------------------------------- epoch and step of metrics


def scores_of(values: list[float]) -> Callable[..., dict[str, float]]:
    """Return a function that stands in for scoring: the evaluations get these F1 values in order."""
    remaining: Iterator[float] = iter(values)
    return lambda *args: {"f1": next(remaining)}


@pytest.mark.parametrize("script", ["qa", "ner"])
def test_results_of_the_best_weights_carry_their_epoch_and_step(
    script: str, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three epochs is best; two steps make an epoch."""
    scores = scores_of([10.0, 30.0, 20.0, 30.0, 30.0])
    monkeypatch.setattr(QuestionAnsweringTrainer, "official_scores", scores)
    monkeypatch.setattr(ner, "entity_scores", scores)
    argv = override(commands[script], "--report_to", "tensorboard", "--output_dir", tmp_path)
    if script == "qa":
        argv += ["--do_predict", "--test_file", argv[argv.index("--validation_file") + 1]]
    process = run_main(SCRIPTS[script], *argv)
    assert process.returncode == 0, process.stderr
    run = read_run(tmp_path)
    assert run["best"] == {"step": 4, "epoch": 2.0, "metric": 30.0}
    assert (run["steps"], run["epochs"]) == (6, 3.0)
    dates = {"train": (3.0, 6), "eval": (2.0, 4)} | ({"predict": (2.0, 4)} if script == "qa" else {})
    combined = json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8"))
    for split, date in dates.items():
        results = json.loads((tmp_path / f"{split}_results.json").read_text(encoding="utf-8"))
        for metrics in (results, run["metrics"][split]):
            assert (metrics["epoch"], metrics["step"]) == date, split
        assert (combined[f"{split}_epoch"], combined[f"{split}_step"]) == date
    last = EventAccumulator(str(sorted((tmp_path / "runs").rglob("events.*"))[-1])).Reload()
    assert [(event.step, event.value) for event in last.Scalars("eval/f1")] == [(4, 30.0)]
    assert [(event.step, event.value) for event in last.Scalars("train/epoch")] == [(4, 2.0)]
    assert "  best        epoch 2/3  F1 30.0" in process.stdout


@pytest.mark.parametrize("option", [("--load_best_model_at_end", "False"), ("--save_strategy", "no")])
def test_the_last_weights_carry_the_last_epoch(
    option: tuple[str, str], commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuestionAnsweringTrainer, "official_scores", scores_of([10.0, 30.0, 20.0, 20.0]))
    argv = override(commands["qa"], *option, "--output_dir", tmp_path)
    assert run_qa_adapter.main(argv) == 0
    run = read_run(tmp_path)
    assert run["best"] == {"step": 4, "epoch": 2.0, "metric": 30.0}
    assert (run["metrics"]["eval"]["epoch"], run["metrics"]["eval"]["step"]) == (3.0, 6)


def test_an_evaluation_without_training_has_no_epoch(commands: Commands, tmp_path: Path) -> None:
    argv = [word for word in commands["qa"] if word != "--do_train"]
    assert run_qa_adapter.main([*argv, "--train_adapter", "False", "--output_dir", str(tmp_path)]) == 0
    run = read_run(tmp_path)
    assert not {"epoch", "step"} & {*run["metrics"]["eval"]}
    assert not {"epoch", "step", "eval_epoch"} & {*json.loads((tmp_path / "all_results.json").read_text("utf-8"))}


# ---------------------------------------------------------------- the metric that decides


@pytest.mark.parametrize(
    ("script", "metric", "more", "problem"),
    [
        ("ner", "ORG_f1", [], "no entity of the evaluation sentences is a ORG; their types are LOC, PER"),
        ("qa", "NoAns_f1", ["--version_2_with_negative"], "no evaluation question has no answer"),
    ],
)
def test_a_metric_that_the_data_does_not_have_is_refused(
    script: str, metric: str, more: list[str], problem: str, commands: Commands, tmp_path: Path
) -> None:
    argv = [*commands[script], *more, "--metric_for_best_model", metric, "--output_dir", str(tmp_path / "run")]
    process = run_main(SCRIPTS[script], *argv)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == f"error: --metric_for_best_model {metric}: not computed, {problem}"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "metric", "more"),
    [
        ("ner", "LOC_recall", []),
        ("mlm", "perplexity", []),
        ("qa", "HasAns_exact", ["--version_2_with_negative"]),
        ("qa", "best_f1", ["--version_2_with_negative"]),
        ("qa", "total", []),
    ],
)
def test_any_printed_metric_decides(
    script: str, metric: str, more: list[str], commands: Commands, tmp_path: Path
) -> None:
    options = ["--metric_for_best_model", metric, "--num_train_epochs", "1", "--output_dir", tmp_path, *more]
    assert SCRIPTS[script](override(commands[script], *options)) == 0
    run = read_run(tmp_path)
    assert run["best"]["metric"] == run["history"][0][f"eval_{metric}"]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (QADataOptions(train_file=["{}/a.json"], validation_file=["{}/b.json"]), "a"),
        (QADataOptions(train_file=["{}/b.json", "{}/a.json"]), "b_and_1_more"),
        (QADataOptions(validation_file=["{}/*.json"]), "a_and_2_more"),
        (QADataOptions(dataset_name="org/squad"), "squad"),
        (QADataOptions(), "none"),
    ],
)
def test_derived_folders_name_the_first_file(data: QADataOptions, name: str, tmp_path: Path) -> None:
    for letter in "abc":
        (tmp_path / f"{letter}.json").touch()
    files: dict[str, Any] = {
        field: [value.format(tmp_path) for value in getattr(data, field)]
        for field in ("train_file", "validation_file")
        if getattr(data, field) is not None
    }
    groups = ModelOptions("base"), replace(data, **files), AdapterOptions(), LanguageAdapterOptions(), FusionOptions()
    config = QARunConfig(*groups, TrainingOptions(report_to=[]))
    assert Path(run_start._data_name(config)).stem == name


# ---------------------------------------------------------------- options of the library


def test_options_with_values_of_the_library_are_repeated_as_text(commands: Commands, tmp_path: Path) -> None:
    argv = override(commands["qa"], "--num_train_epochs", "1", "--debug", "underflow_overflow")
    assert run_qa_adapter.main([*argv, "--output_dir", str(tmp_path)]) == 0
    options = yaml.safe_load((tmp_path / "options.yaml").read_text(encoding="utf-8"))
    assert options["debug"] == ["underflow_overflow"]


@pytest.mark.parametrize(("script", "unit"), [("qa", "windows"), ("ner", "inputs"), ("mlm", "blocks")])
def test_dropping_the_only_batch_is_refused(script: str, unit: str, commands: Commands, tmp_path: Path) -> None:
    argv = override(commands[script], "--per_device_train_batch_size", "500", "--dataloader_drop_last", "True")
    (problem,) = problems_of(SCRIPTS[script], [*argv, "--output_dir", str(tmp_path / "run")])
    assert re.fullmatch(
        rf"--dataloader_drop_last True: \d+ {unit} are fewer than one batch of 500, so all would be dropped; leave it "
        "out or lower --per_device_train_batch_size",
        problem,
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "option"), [("qa", "max_seq_length"), ("ner", "max_seq_length"), ("mlm", "block_size")]
)
def test_problems_of_setup_and_length_are_reported_together(
    script: str, option: str, commands: Commands, tmp_path: Path
) -> None:
    options = [f"--{option}", 129, "--adapter_non_linearity", "geluu", "--output_dir", tmp_path / "run"]
    activation, length = problems_of(SCRIPTS[script], override(commands[script], *options))
    assert activation.startswith("--adapter_non_linearity geluu: no such activation")
    assert length == f"--{option} 129: the base model reads at most 128 tokens"


# ---------------------------------------------------------------- weights that are not finite


@pytest.mark.parametrize("of_loss", [True, False])
def test_a_training_that_ends_with_nan_is_not_finished(
    of_loss: bool, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is logged, evaluated or saved before the end."""
    forward_and_backward = QuestionAnsweringTrainer.forward_and_backward

    def broken(trainer: QuestionAnsweringTrainer, *args: Any) -> torch.Tensor:
        loss = forward_and_backward(trainer, *args)
        if of_loss:
            return loss * float("nan")
        for weight in trainer.model.parameters():
            if weight.grad is not None:
                weight.grad *= float("nan")
        return loss

    monkeypatch.setattr(QuestionAnsweringTrainer, "forward_and_backward", broken)
    argv = override(commands["qa"], "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no")
    with pytest.raises(RunError, match=rf"^step {1 if of_loss else 2}: the loss is infinite or NaN"):
        run_qa_adapter.main([*argv, "--logging_strategy", "no", "--output_dir", str(tmp_path)])
    assert read_run(tmp_path)["status"] == "failed"
    assert not (tmp_path / "adapters-qa").exists()


# ---------------------------------------------------------------- blocks that are held out


def test_text_is_held_out_for_an_evaluation_only(commands: Commands, tmp_path: Path) -> None:
    """A run that a version before began goes on with the blocks that it began with."""
    argv = [word for word in commands["mlm"] if word != "--do_eval"]
    argv = override(argv, "--num_train_epochs", "1", "--save_strategy", "no", "--output_dir", tmp_path / "run")
    split = [argv.index(name) for name in ("--validation_file", "--max_train_samples", "--max_eval_samples")]
    argv = [word for number, word in enumerate(argv) if not any(number in (at, at + 1) for at in split)]
    assert run_mlm_adapter.main(argv) == 0
    run = read_run(tmp_path / "run")
    assert run["data"].keys() == {"train"}
    blocks = run["data"]["train"]["blocks"]

    def resumed(**changes: Any) -> dict[str, Any]:
        (tmp_path / "run" / "run.json").write_text(json.dumps(run | changes), encoding="utf-8")
        assert run_mlm_adapter.main(argv) == 0
        data: dict[str, Any] = read_run(tmp_path / "run")["data"]
        return data

    held_out = max(1, round(blocks * 0.05))
    begun = run["data"] | {"eval": {"held_out_of": "train.json", "blocks": held_out}}
    data = resumed(status="interrupted", data=begun)
    assert (data["train"]["blocks"], data["eval"]["blocks"]) == (blocks - held_out, held_out)
    data = resumed(status="interrupted")
    assert (set(data), data["train"]["blocks"]) == ({"train"}, blocks)
    argv.append("--overwrite_output_dir")
    assert resumed(status="interrupted", data=begun).keys() == {"train"}


def test_text_that_is_not_evaluated_on_is_in_no_plan(
    commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [word for word in commands["mlm"] if word != "--do_eval"]
    assert run_mlm_adapter.main([*argv, "--output_dir", str(tmp_path)]) == 0
    assert read_run(tmp_path)["data"].keys() == {"train"}
    assert "evaluate on" not in capsys.readouterr().out


# ---------------------------------------------------------------- questions without gold answers


@pytest.mark.parametrize("version_2", [True, False])
@pytest.mark.parametrize(
    ("answers", "known"),
    [({}, False), ({"answers": None}, False), ({"answers": []}, True), ({"is_impossible": True}, True)],
)
def test_predictions_are_scored_if_gold_answers_are_given(
    answers: dict[str, Any], known: bool, version_2: bool, commands: Commands, tmp_path: Path
) -> None:
    """A question of SQuAD v1 that is said to have no answer is not scored either."""
    record = {"question": "Quem?", "context": "Ana nasceu em Recife.", **answers}
    test = tmp_path / "test.json"
    test.write_text(json.dumps([{"id": str(number), **record} for number in range(3)]), encoding="utf-8")
    argv = override(commands["qa"], "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no")
    argv += ["--version_2_with_negative", str(version_2), "--do_predict", "--test_file", str(test)]
    assert run_qa_adapter.main([*argv, "--output_dir", str(tmp_path / "run")]) == 0
    metrics = read_run(tmp_path / "run")["metrics"]["predict"]
    scored = known and version_2
    names = ("predict_f1", "predict_loss", "predict_ece")
    assert [name in metrics for name in names] == [scored] * 3
    assert ("predict_NoAns_f1" in metrics) is scored
    assert metrics["predict_questions"] == 3
    assert (tmp_path / "run" / "predict_curves.json").is_file() is scored
    assert len(json.loads((tmp_path / "run" / "predict_predictions.json").read_text(encoding="utf-8"))) == 3
