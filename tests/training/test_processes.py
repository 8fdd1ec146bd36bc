"""Runs of two processes on the CPU (gloo), plain and under DeepSpeed's ZeRO-2 and ZeRO-3, against one process.

DeepSpeed is optional: pip install ".[deepspeed]"; its operators are compiled at first use, in minutes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.questions import make_questions, write_squad
from support.scripts import ROOT, override
from support.trainers import copy_without_dropout

import run_qa_adapter
from adapter_qa.core.errors import UserError

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed (extra deepspeed)"
)
LAUNCHES = [
    pytest.param([], id="ddp"),
    pytest.param(["--deepspeed", str(ROOT / "ds_config_zero2.json")], id="zero2", marks=needs_deepspeed),
    pytest.param(["--deepspeed", str(ROOT / "ds_config_zero3.json")], id="zero3", marks=needs_deepspeed),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
QUIET = ["--report_to", "none", "--disable_tqdm", "True", "--use_cpu", "True"]
WINDOWS = ["--max_seq_length", "64", "--doc_stride", "16"]
LOSS_TOLERANCE = 1.01e-4  # losses are logged with four digits; rounding may change the last one
RESUMED_STEP = 3  # of nine

MakeArgv = Callable[..., list[str]]


@pytest.fixture(scope="module")
def make_argv(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeArgv:
    """Return a function that makes the command line of a fusion training.

    There is no dropout, because each process draws its own. The 23 questions for training and the 9 for evaluation
    cannot be divided evenly between two processes.
    """
    folder = copy_without_dropout(tiny_bert, tmp_path_factory.mktemp("base"))
    train = write_squad(folder / "train.json", make_questions(23, 1))
    dev = write_squad(folder / "dev.json", make_questions(9, 2))

    def make(output: Path, batch: int, *options: str) -> list[str]:
        setup = ["--random_init", "True", "--load_lang_adapter", "new", "--fuse_adapters", "qa=new", "ner=new"]
        files = ["--train_file", str(train), "--validation_file", str(dev), "--do_train", "--do_eval", *WINDOWS]
        steps = ["--num_train_epochs", "3", "--learning_rate", "1e-2", "--weight_decay", "0.01", "--logging_steps", "1"]
        sizes = ["--per_device_train_batch_size", str(batch), "--per_device_eval_batch_size", str(batch)]
        argv = ["--model_name_or_path", str(folder), *setup, "--madx2", "True", *files, *steps, *sizes]
        return override([*argv, "--save_total_limit", "10", "--output_dir", str(output), *QUIET], *options)

    return make


def start(launcher: list[str], script: str, argv: list[str], cwd: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(ROOT / script), *argv]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    )


def run_two_processes(argv: list[str], script: str = "run_qa_adapter.py") -> str:
    """Run a script in two processes, require success and return its standard error."""
    process = start([*TORCHRUN, "--standalone", "--nproc_per_node", "2"], script, argv)
    errors = process.communicate(timeout=900)[1]
    assert process.returncode == 0, errors[-4000:]
    return errors


def read(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read(folder)["losses"]]


def scores(folder: Path) -> list[tuple[float, float]]:
    return [(entry["eval_f1"], entry["eval_exact"]) for entry in read(folder)["history"]]


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return every weight of the saved adapters, by file and name."""
    files = sorted((folder / "adapters-fusion").rglob("*.safetensors"))
    weights = {f"{file.name} {name}": weight for file in files for name, weight in load_file(file).items()}
    assert len(files) == 5  # three adapters, fusion, head
    assert all(weight.numel() for weight in weights.values())
    return weights


def assert_same_weights(first: Path, second: Path, tolerance: float) -> None:
    weights, expected = saved_weights(first), saved_weights(second)
    assert weights.keys() == expected.keys()
    # The head's bias shifts the scores of all tokens equally, a fusion's key bias those of all adapters. Neither has an
    # influence on the loss, so their gradients are rounding noise.
    for name in weights:
        if name.endswith(("qa_outputs.bias", "adapter_fusion_layer.qa,ner.key.bias")):
            continue
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def single_run(make_argv: MakeArgv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in one process."""
    folder = tmp_path_factory.mktemp("runs") / "single"
    assert run_qa_adapter.main(make_argv(folder, 8)) == 0
    return folder


@pytest.fixture(scope="module", params=LAUNCHES)
def double_run(request: pytest.FixtureRequest, make_argv: MakeArgv, single_run: Path) -> tuple[Path, list[str]]:
    """The folder and the command line of the same run in two processes, each with half of the batch."""
    folder = single_run.parent / f"double{len(list(single_run.parent.iterdir()))}"
    argv = make_argv(folder, 4, *request.param)
    errors = run_two_processes(argv)
    assert "FutureWarning" not in errors
    return folder, argv


def test_two_processes_give_the_results_of_a_single_process(
    single_run: Path, double_run: tuple[Path, list[str]]
) -> None:
    folder = double_run[0]
    document, expected = read(folder), read(single_run)
    assert document["options"]["processes"] == 2
    assert document["status"] == "finished"
    assert len(losses(single_run)) == 9
    assert losses(folder) == pytest.approx(losses(single_run), abs=LOSS_TOLERANCE)
    assert scores(folder) == scores(single_run)
    assert document["best"] == expected["best"]
    assert [entry["eval_loss"] for entry in document["history"]] == pytest.approx(
        [entry["eval_loss"] for entry in expected["history"]], rel=1e-6
    )
    assert_same_weights(single_run, folder, 5e-6)
    assert (folder / "eval_predictions.json").read_bytes() == (single_run / "eval_predictions.json").read_bytes()
    assert_same_attention(single_run, folder)


def assert_same_attention(first: Path, second: Path) -> None:
    """Compare the attention files; the last batch of two processes repeats windows, which must not count twice."""
    attention, expected = (
        json.loads((folder / "fusion_attention.json").read_text(encoding="utf-8")) for folder in (first, second)
    )
    windows = read(first)["data"]["eval"]["windows"]
    assert windows % 8 > 0
    assert attention["windows"] == expected["windows"] == windows
    for part in ("question", "context", "all"):
        torch.testing.assert_close(torch.tensor(attention[part]), torch.tensor(expected[part]), rtol=0, atol=1e-5)


def copy_as_interrupted(folder: Path, target: Path) -> None:
    """Copy a finished run; the copy looks as after a power cut after `RESUMED_STEP` steps."""
    shutil.copytree(folder, target)
    shutil.rmtree(target / "adapters-fusion")
    for checkpoint in target.glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > RESUMED_STEP:
            shutil.rmtree(checkpoint)
    document = read(target) | {"status": "running"}
    (target / "run.json").write_text(json.dumps(document))


def test_resumed_run_of_two_processes_equals_the_uninterrupted_run(
    double_run: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, argv = double_run
    resumed = tmp_path / "resumed"
    copy_as_interrupted(folder, resumed)
    run_two_processes([str(resumed) if argument == str(folder) else argument for argument in argv])
    assert losses(resumed) == losses(folder)
    assert scores(resumed) == scores(folder)
    assert read(resumed)["best"] == read(folder)["best"]
    for name, weight in saved_weights(folder).items():
        assert torch.equal(weight, saved_weights(resumed)[name]), name


def test_single_process_gives_the_same_answers_from_the_saved_run(
    double_run: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, argv = double_run
    dev = argv[argv.index("--validation_file") + 1]
    options = ["--model_name_or_path", str(folder / "base"), "--load_adapter", str(folder), "--do_eval", *WINDOWS]
    argv = [*options, *QUIET, "--validation_file", dev, "--output_dir", str(tmp_path / "single")]
    assert run_qa_adapter.main(argv) == 0
    answers, expected = ((run_dir / "eval_predictions.json").read_bytes() for run_dir in (tmp_path / "single", folder))
    assert answers == expected


@pytest.mark.parametrize("stage", [2, 3])
@needs_deepspeed
def test_bfloat16_training_saves_float32_weights(
    make_argv: MakeArgv, single_run: Path, tmp_path: Path, stage: int
) -> None:
    config = str(ROOT / f"ds_config_zero{stage}.json")
    run_two_processes(make_argv(tmp_path / "run", 4, "--deepspeed", config, "--bf16", "True"))
    assert losses(tmp_path / "run") == pytest.approx(losses(single_run), abs=0.02)  # bfloat16: 8 bits
    weights, expected = saved_weights(tmp_path / "run"), saved_weights(single_run)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    for name in weights:
        rounded = torch.equal(weights[name], weights[name].bfloat16().float())
        assert not rounded or weights[name].abs().max() == 0, name  # saved from the optimizer's float32 copies
        if name.startswith("adapter.safetensors"):
            assert torch.equal(weights[name], expected[name])  # frozen: the initial weights


@pytest.mark.parametrize("script", ["run_mlm_adapter.py", "run_ner_adapter.py", "run_qa_adapter.py"])
@needs_deepspeed
def test_every_script_trains_under_zero_3(make_argv: MakeArgv, tmp_path: Path, script: str) -> None:
    argv = make_argv(tmp_path, 4)
    base, files = argv[1], argv.index("--train_file")
    questions = argv[files : files + 4]
    texts, sentences = tmp_path / "texts.txt", tmp_path / "sentences.conll"
    texts.write_text("\n".join(question.context for question in make_questions(60, 5)), encoding="utf-8")
    sentences.write_text("Ana B-PER\nnasceu O\nem O\nRecife B-LOC\n\n" * 12, encoding="utf-8")
    data = {
        "run_mlm_adapter.py": ["--train_file", str(texts), "--block_size", "32", "--max_train_samples", "16"],
        "run_ner_adapter.py": ["--train_file", str(sentences), "--validation_file", str(sentences), *WINDOWS[:2]],
        "run_qa_adapter.py": [*questions, *WINDOWS, "--train_adapter", "False"],
    }[script]
    argv = ["--model_name_or_path", base, "--do_train", "--do_eval", "--num_train_epochs", "1", *QUIET, *data]
    argv += ["--output_dir", str(tmp_path / "run"), "--deepspeed", str(ROOT / "ds_config_zero3.json")]
    run_two_processes(argv, script)
    saved = [file for file in (tmp_path / "run").rglob("*.safetensors") if "checkpoint" not in str(file)]
    assert saved
    for file in saved:
        for name, weight in load_file(file).items():
            assert weight.numel(), (file, name)
            assert weight.isfinite().all(), (file, name)
    assert read(tmp_path / "run")["status"] == "finished"


def test_two_machines_share_an_output_folder(make_argv: MakeArgv, single_run: Path, tmp_path: Path) -> None:
    """Two launchers on this machine, started in different folders, stand in for two machines.

    Each computes its batches in parts, not always in as many as the other; the results are those of whole batches.
    """
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    nodes = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    processes = []
    for node in range(2):
        cwd = tmp_path / f"node{node}"
        cwd.mkdir()
        launcher = [*TORCHRUN, *nodes, "--node_rank", str(node)]
        argv = make_argv(tmp_path / "shared", 4)
        if not torch.accelerator.is_available():  # without an accelerator, --use_cpu is not needed
            argv = argv[: argv.index("--use_cpu")]
        processes.append(start(launcher, "run_qa_adapter.py", [*argv, "--tokens_per_batch", "110"], cwd))
    (first_stdout, first_stderr), (second_stdout, second_stderr) = (
        process.communicate(timeout=600) for process in processes
    )
    assert [process.returncode for process in processes] == [0, 0], first_stderr[-3000:] + second_stderr[-3000:]
    assert losses(tmp_path / "shared") == pytest.approx(losses(single_run), abs=LOSS_TOLERANCE)
    assert scores(tmp_path / "shared") == scores(single_run)
    assert_same_weights(single_run, tmp_path / "shared", 5e-6)
    assert "run_qa_adapter.py: finished" in first_stdout  # only the main process prints
    assert second_stdout == ""
    assert [list((tmp_path / f"node{node}").iterdir()) for node in range(2)] == [[], []]


def test_error_found_by_the_main_process_ends_all_processes_and_is_reported_once(
    make_argv: MakeArgv, single_run: Path, tmp_path: Path
) -> None:
    """Only the main process looks into the output folder; here it has a run with another seed."""
    folder = tmp_path / "run"
    shutil.copytree(single_run, folder)
    argv = make_argv(folder, 8, "--seed", "7")
    process = start([*TORCHRUN, "--standalone", "--nproc_per_node", "2"], "run_qa_adapter.py", argv)
    stderr = process.communicate(timeout=600)[1]
    assert process.returncode == 1  # of torchrun
    (error,) = [line for line in stderr.splitlines() if line.startswith(("error:", "[rank"))]
    assert "holds a finished run with other options (seed was 42, now 7)" in error


def test_fsdp_and_accelerate_deepspeed_are_rejected_with_an_alternative(
    make_argv: MakeArgv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alternative = r"give --deepspeed ds_config_zero3\.json"
    with pytest.raises(UserError, match=alternative):
        run_qa_adapter.main(make_argv(tmp_path / "run", 8, "--fsdp", "full_shard"))
    for variable, message in (("FSDP", alternative), ("DEEPSPEED", "accelerate's DeepSpeed")):
        with monkeypatch.context() as patch:
            patch.setenv(f"ACCELERATE_USE_{variable}", "true")  # what `accelerate launch` sets
            with pytest.raises(UserError, match=message):
                run_qa_adapter.main(make_argv(tmp_path / "run", 8))
    assert not (tmp_path / "run").exists()
