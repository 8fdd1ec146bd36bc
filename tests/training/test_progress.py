"""What people see of a run: the plan, progress, evaluations and the result (adapter_qa/training/progress.py)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.scripts import ROOT, override, run_main
from support.terminal import run_in_terminal
from transformers import TrainerControl, TrainerState, TrainingArguments

import run_qa_adapter
from adapter_qa.core.readable import duration, file_size, metrics_text
from adapter_qa.training import progress
from adapter_qa.training.progress import ProgressLines, epoch_text
from adapter_qa.training.run_summary import aligned, score_hints, split_text

Files = tuple[Path, Path]

# ---------------------------------------------------------------- words and numbers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_951, "1.0 MB"),
     (868_800_000, "868.8 MB"), (1_340_000_000, "1.3 GB"), (5_000_000_000_000, "5.0 TB")],
)  # fmt: skip
def test_sizes(size: int, text: str) -> None:
    assert file_size(size) == text


@pytest.mark.parametrize(
    ("done", "epochs", "text"),
    [(None, 5, "epoch 1/5"), (0.0, 5, "epoch 1/5"), (0.01, 5, "epoch 1/5"), (1.0, 5, "epoch 1/5"),
     (1.01, 5, "epoch 2/5"), (5.0, 5, "epoch 5/5"), (1.02, 1, "epoch 1/1")],
)  # fmt: skip
def test_epochs(done: float | None, epochs: int, text: str) -> None:
    assert epoch_text(done, epochs) == text


@pytest.mark.parametrize(
    ("metrics", "best", "text"),
    [
        ({"eval_loss": 2.314, "eval_f1": 43.849, "eval_exact": 24.04, "eval_total": 9, "epoch": 2.0}, "f1",
         "F1 43.8  EM 24.0  loss 2.31"),
        ({"eval_loss": 0.0314, "eval_perplexity": 1234.56}, "loss", "perplexity 1,234.6  loss 0.031"),
        ({"eval_f1": 50.0, "eval_PER_f1": 60.0}, "PER_f1", "PER f1 60.0  F1 50.0"),
        ({"eval_f1": 50.0, "eval_HasAns_f1": 40.0, "eval_NoAns_f1": 100.0}, "f1",
         "F1 50.0  HasAns F1 40.0  NoAns F1 100.0"),
    ],
)  # fmt: skip
def test_metrics(metrics: dict[str, float], best: str, text: str) -> None:
    assert metrics_text(metrics, best) == text


@pytest.mark.parametrize(
    ("name", "counts", "text"),
    [
        ("train", {"file": "a", "unaligned": 3, "questions": 1000, "windows": 1203, "cut_questions": 0},
         "1,000 questions in 1,203 windows (3 left out)"),
        ("eval", {"unaligned": 3, "questions": 10, "windows": 12, "cut_questions": 2, "answer_too_long": 1},
         "10 questions in 12 windows (3 without their answer in the context, 2 questions cut, 1 answers too long)"),
        ("train", {"sentences": 7, "inputs": 8, "cut_sentences": 1}, "7 sentences in 8 inputs (1 sentences cut)"),
        ("train", {"texts": 5, "empty_texts": 2, "blocks": 9}, "5 texts in 9 blocks (2 empty ones left out)"),
        ("eval", {"held_out_of": "a.txt", "blocks": 4}, "4 blocks"),
    ],
)  # fmt: skip
def test_counts_of_a_split(name: str, counts: dict[str, Any], text: str) -> None:
    assert split_text(name, counts) == text


def test_long_rows_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert aligned({"device": "GPU", "evaluation": "every epoch; the best F1 decides"}) == (
        "  device      GPU\n  evaluation  every epoch; the best F1\n              decides"
    )


@pytest.mark.parametrize(("f1", "hints"), [(0.0, 1), (0.1, 0)])
def test_an_f1_of_zero_draws_a_hint(f1: float, hints: int) -> None:
    assert len(score_hints({"eval_f1": f1})) == hints
    assert score_hints({"eval_loss": 1.0}) == []


# ---------------------------------------------------------------- without a terminal


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    printed: list[str] = []
    monkeypatch.setattr(progress, "print_main", printed.append)
    return printed


def test_without_a_terminal_there_is_a_line_every_minute(lines: list[str], tmp_path: Path) -> None:
    """Steps of 25 s, each of 32 questions; the evaluation between the second and third step takes 100 s."""
    args = TrainingArguments(
        str(tmp_path), metric_for_best_model="f1", use_cpu=True, report_to="none", load_best_model_at_end=True,
        eval_strategy="steps", save_strategy="steps", eval_steps=2, save_steps=2,
    )  # fmt: skip
    trainer: Any = SimpleNamespace(args=args, callback_handler=SimpleNamespace(callbacks=[]))
    clock, control = Clock(), TrainerControl()
    callback = ProgressLines(trainer, 32.0, "questions", clock)
    state = TrainerState(max_steps=8, num_train_epochs=2, epoch=0.0)
    callback.on_train_begin(args, state, control)
    callback.on_evaluate(args, state, control, metrics={"eval_f1": 45.0, "eval_loss": 2.5})
    assert lines.pop() == "epoch 1/2  F1 45.0  loss 2.50"  # --eval_on_start: `Trainer` keeps no weights of it

    def step(number: int) -> None:
        clock.now += 25
        state.global_step, state.epoch = number, number / 4
        callback.on_step_end(args, state, control)

    step(1)
    step(2)
    callback.on_log(args, state, control, logs={"loss": 2.3456, "learning_rate": 0.000123})
    callback.on_prediction_step(args, state, control, eval_dataloader=[0])
    clock.now += 100
    callback.on_evaluate(args, state, control, metrics={"eval_f1": 40.0, "eval_loss": 2.0})
    assert lines == ["epoch 1/2  step 2  F1 40.0  loss 2.00  best"]
    step(3)
    step(4)
    assert lines[1:] == [
        "epoch 1/2  step 3 of 8  loss 2.35  lr 0.00012  1.3 questions/s  best F1 40.0  4 min 52 s left"
    ]
    callback.on_evaluate(args, state, control, metrics={"eval_f1": 40.0, "eval_loss": 1.0})
    assert lines[2:] == ["epoch 1/2  F1 40.0  loss 1.00"]  # equal is not better


# ---------------------------------------------------------------- screens


@pytest.fixture(scope="module")
def command(tiny_bert: Path, squad_files: Files) -> list[str]:
    """Return a training whose F1 stays the same, because the learning rate is 0."""
    train, dev = map(str, squad_files)
    return [
        "--model_name_or_path", str(tiny_bert), "--train_file", train, "--validation_file", dev, "--do_train",
        "--do_eval", "--max_train_samples", "8", "--max_eval_samples", "4", "--per_device_train_batch_size", "2",
        "--gradient_accumulation_steps", "2", "--max_seq_length", "64", "--doc_stride", "16", "--learning_rate", "0",
        "--num_train_epochs", "9", "--early_stopping_patience", "2", "--tokens_per_batch", "10000",
        "--report_to", "none",
    ]  # fmt: skip


def plan_lines(document: dict[str, Any], base: Path) -> list[str]:
    """Return the header that belongs to a run.json with the options of `command`."""
    data, parameters = document["data"], document["parameters"]
    total = parameters["base"] + parameters["added"]
    trainable = parameters["trainable"]
    return [
        "run_qa_adapter.py",
        f"  device      {document['device']}",
        "  precision   float32: this CPU has no bfloat16 units to use",
        "  step        fast, with dropout 0.1016",
        f"  base        {base}",
        "  setup       Stack[qa]",
        f"  parameters  {total:,}, of which {trainable:,} train ({100 * trainable / total:.2f} %)",
        f"  train on    8 questions in {data['train']['windows']} windows",
        f"  evaluate on  4 questions in {data['eval']['windows']} windows",
        "  batch       2 windows x 2 accumulated = 4, in parts of at most 10,000 tokens",
        f"  steps       {9 * -(-data['train']['windows'] // 4)} in 9 epochs",
    ]


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return document


def scores(metrics: dict[str, float]) -> str:
    return f"F1 {metrics['eval_f1']:.1f}  EM {metrics['eval_exact']:.1f}  loss {metrics['eval_loss']:.2f}"


def test_screens_of_an_interrupted_run_and_of_its_early_stop(
    command: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    """The run is interrupted after its first evaluation, at 80 columns, and resumed at 120."""
    bars: list[str] = []
    sent: list[int] = []

    def interrupt(text: str, process: subprocess.Popen[bytes]) -> None:
        bars.extend(line for line in text.splitlines() if " left" in line)
        if re.search(r"epoch 1/9  F1.*best\s*\n", text) and not sent:  # the whole line, with its end
            sent.append(signal.SIGINT)
            process.send_signal(signal.SIGINT)

    script = [sys.executable, str(ROOT / "run_qa_adapter.py"), *command, "--output_dir", "run"]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    stopped = run_in_terminal(script, env=environment, cwd=tmp_path, on_screen=interrupt)
    begun = read(tmp_path / "run")
    assert (stopped.exit_code, begun["status"]) == (-signal.SIGINT, "interrupted")
    checkpoint, step = re.findall(r"^stopped: run/(checkpoint-(\d+)) is saved", stopped.lines[-1])[0]
    assert (tmp_path / "run" / checkpoint).is_dir()
    first = f"epoch 1/9  {scores(begun['history'][0])}  best"
    begun_f1 = begun["history"][0]["eval_f1"]
    plan = plan_lines(begun, tiny_bert)
    assert [line[:79] for line in stopped.lines] == stopped.lines
    assert stopped.lines == [
        *plan,
        "  evaluation  every epoch; the best F1 decides; stops after 2 evaluations",
        "              without a better one",
        "  folder      run",
        first,
        "SIGINT: saving a checkpoint after this step; a second signal stops at once",
        f"stopped: run/{checkpoint} is saved; the same command resumes from step {step} of {steps(begun)}",
    ]
    assert any(re.fullmatch(r"epoch [12]/9 \|.*\| \d+%, [\d:?]+ left, .*\d/s(, best \S+)?", bar) for bar in bars), bars

    ended = run_in_terminal(script, env=environment, cwd=tmp_path, columns=120)
    finished = read(tmp_path / "run")
    assert (ended.exit_code, finished["status"]) == (0, "finished")
    best, *later = (scores(metrics) for metrics in finished["history"])
    saved = folder_bytes(tmp_path / "run" / "adapters-qa")
    assert finished["result"]["saved_bytes"] == saved
    assert re.sub(r"\d+ s; training \d+ s", "N s; training N s", ended.text).splitlines() == [
        *plan,
        "  evaluation  every epoch; the best F1 decides; stops after 2 evaluations without a better one",
        f"  resumes     from {checkpoint}",
        "  folder      run",
        *(f"epoch {epoch}/9  {text}  not better ({epoch - 1} of 2)" for epoch, text in enumerate(later, start=2)),
        f"evaluation: {best}",
        "run_qa_adapter.py: finished",
        "  ended       stopped early: no better F1 for 2 evaluations",
        f"  best        epoch 1/9  {best}",
        "  time        N s; training N s in all",
        f"  memory      at most {file_size(finished['result']['memory_bytes'])}",
        f"  saved       run/adapters-qa ({saved / 1000:.1f} kB)",
        f"  folder      run ({finished['result']['folder_bytes'] / 1000:.1f} kB)",
        "next:",
        '  python ask_qa.py run --question "..." --context "..."',
        "  python report_qa.py run --output_dir report",
        "  python export_qa.py run exported",
        *(["note: F1 is 0.0: nothing was learned; train longer or raise --learning_rate"] if not begun_f1 else []),
    ]
    assert finished["ended"] == "stopped early: no better F1 for 2 evaluations"
    assert len(later) == 2


def steps(document: dict[str, Any]) -> int:
    return int(document["plan"]["training"]["steps"])


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) + sum(
        folder_bytes(path) for path in folder.iterdir() if path.is_dir()
    )


# ---------------------------------------------------------------- files for scripts


def test_options_yaml_repeats_the_run(command: list[str], tmp_path: Path) -> None:
    """The repeated run has the same options, apart from its folder, and the same results."""
    folders = tmp_path / "first", tmp_path / "again"
    words = override(command, "--num_train_epochs", "1", "--seed", "42", "--hub_token", "secret")
    process = run_main(run_qa_adapter.main, *words, "--output_dir", folders[0], "--overwrite_output_dir")
    assert process.returncode == 0, process.stderr
    text = (folders[0] / "options.yaml").read_text(encoding="utf-8")
    options = yaml.safe_load(text)
    assert options["learning_rate"] == 0
    assert not {"seed", "hub_token", "overwrite_output_dir"} & options.keys()  # a default, a secret, not to be repeated
    process = run_main(run_qa_adapter.main, folders[0] / "options.yaml", "--output_dir", folders[1])
    assert process.returncode == 0, process.stderr
    first, again = map(read, folders)
    own = {"output_dir", "logging_dir", "overwrite_output_dir", "hub_token", "run_name"}
    assert {key: value for key, value in first["options"].items() if key not in own} == {
        key: value for key, value in again["options"].items() if key not in own
    }
    assert first["history"][0]["eval_loss"] == again["history"][0]["eval_loss"]


def test_the_plan_is_in_run_json(command: list[str], tmp_path: Path) -> None:
    process = run_main(run_qa_adapter.main, *override(command, "--num_train_epochs", "1"), "--output_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    document = read(tmp_path)
    windows = document["data"]["train"]["windows"]
    assert document["plan"]["training"] == {
        "batch_size": 2,
        "tokens_per_batch": 10000,
        "accumulation": 2,
        "effective_batch_size": 4,
        "steps": document["steps"],
        "epochs": 1.0,
        "evaluation": "every epoch",
        "metric": "f1",
        "patience": 2,
        "resumed_from": None,
        "learning_rate": document["options"]["learning_rate"],
        "head_learning_rate": None,
    }
    assert document["steps"] == -(-windows // 4)


def trained(process: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on what an evaluation decides, and on which weights are kept."""
    words = ("  evaluation", "epoch ", "  best", "note: the last weights")
    return [line for line in (process.stdout + process.stderr).splitlines() if line.startswith(words)]


def test_the_best_of_the_evaluations_between_epochs_is_kept(command: list[str], tmp_path: Path) -> None:
    """F1 stays the same, so the first evaluation is best."""
    words = override(
        command,
        "--num_train_epochs",
        "1",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "1",
        "--early_stopping_patience",
        "9",
    )
    process = run_main(run_qa_adapter.main, *words, "--output_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    document = read(tmp_path)
    names = ("save_strategy", "save_steps", "load_best_model_at_end")
    assert [document["options"][name] for name in names] == ["steps", 1, True]
    assert (document["best"]["step"], document["metrics"]["eval"]["step"]) == (1, 1)
    assert document["steps"] > 1


@pytest.mark.parametrize("options", [("--load_best_model_at_end", "False"), ("--save_strategy", "no")])
def test_where_the_last_weights_are_kept_nothing_else_is_said(
    options: tuple[str, str], command: list[str], tmp_path: Path
) -> None:
    words = override(command, "--num_train_epochs", "2", "--early_stopping_patience", "9", *options)
    process = run_main(run_qa_adapter.main, *words, "--output_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    document = read(tmp_path)
    first, last = map(scores, document["history"])
    assert trained(process) == [
        "  evaluation  every epoch; the last weights are kept; stops after 9 evaluations",
        f"epoch 1/2  {first}  best so far, not kept",
        f"epoch 2/2  {last}  not better (1 of 9)",
        "note: the last weights are kept, not those of the best evaluation; a new run without "
        "--load_best_model_at_end and --save_strategy keeps the best",
    ]
    assert document["plan"]["training"]["metric"] is None
    assert document["metrics"]["eval"]["step"] == document["steps"]


# ---------------------------------------------------------------- disk


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], []),
        (["--keep_checkpoint", "True"], ["checkpoint-2"]),
        (["--save_total_limit", "2"], ["checkpoint-2", "checkpoint-4"]),
        (["--save_total_limit", "2", "--keep_checkpoint", "False"], []),
    ],
)
def test_checkpoints_of_a_finished_run(options: list[str], kept: list[str], command: list[str], tmp_path: Path) -> None:
    """F1 stays the same, so the first epoch is best; an epoch has two steps."""
    words = override(command, "--num_train_epochs", "2", *options)
    process = run_main(run_qa_adapter.main, *words, "--output_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == kept
    assert (tmp_path / "adapters-qa" / "qa" / "adapter.safetensors").is_file()


def test_what_a_kill_leaves_after_the_end_is_removed(command: list[str], tmp_path: Path) -> None:
    words = [*override(command, "--num_train_epochs", "1"), "--output_dir", str(tmp_path)]
    assert run_main(run_qa_adapter.main, *words).returncode == 0
    (tmp_path / "checkpoint-2").mkdir()
    process = run_main(run_qa_adapter.main, *words)
    assert "this run is finished" in process.stdout
    assert not (tmp_path / "checkpoint-2").exists()


def test_a_finished_run_of_an_earlier_version_keeps_its_checkpoints(command: list[str], tmp_path: Path) -> None:
    words = [*override(command, "--num_train_epochs", "1"), "--output_dir", str(tmp_path)]
    assert run_main(run_qa_adapter.main, *words).returncode == 0
    document = read(tmp_path)
    del document["options"]["keep_checkpoint"]
    (tmp_path / "run.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "checkpoint-2").mkdir()
    assert "this run is finished" in run_main(run_qa_adapter.main, *words).stdout
    assert (tmp_path / "checkpoint-2").is_dir()
