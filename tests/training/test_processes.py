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
from support.scripts import ROOT

import run_qa_adapter
from adapter_qa.core.errors import UserError

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed (extra deepspeed)"
)
WAYS = [
    pytest.param([], id="ddp"),
    pytest.param(["--deepspeed", str(ROOT / "ds_config_zero2.json")], id="zero2", marks=needs_deepspeed),
    pytest.param(["--deepspeed", str(ROOT / "ds_config_zero3.json")], id="zero3", marks=needs_deepspeed),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
QUIET = ["--report_to", "none", "--disable_tqdm", "True", "--use_cpu", "True"]
WINDOWS = ["--max_seq_length", "64", "--doc_stride", "16"]
LOSS = 1.01e-4  # losses are logged with four digits; noise may tip the last one
STEP_KEPT = 3  # of nine; a run that is put back to it goes on from there

Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The command line of a fusion training that has no dropout, which processes would draw each for itself.

    23 questions and 9 to evaluate: neither comes out even for two processes.
    """
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    train = write_squad(folder / "train.json", make_questions(23, 1))
    dev = write_squad(folder / "dev.json", make_questions(9, 2))

    def command(output: Path, batch: int, *others: str) -> list[str]:
        setup = ["--random_init", "True", "--load_lang_adapter", "new", "--fuse_adapters", "qa=new", "ner=new"]
        files = ["--train_file", str(train), "--validation_file", str(dev), "--do_train", "--do_eval", *WINDOWS]
        steps = ["--num_train_epochs", "3", "--learning_rate", "1e-2", "--weight_decay", "0.01", "--logging_steps", "1"]
        sizes = ["--per_device_train_batch_size", str(batch), "--per_device_eval_batch_size", str(batch)]
        words = ["--model_name_or_path", str(folder), *setup, "--madx2", "True", *files, *steps, *sizes]
        return [*words, "--save_total_limit", "10", "--output_dir", str(output), *QUIET, *others]

    return command


def start(launcher: list[str], door: str, words: list[str], cwd: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(ROOT / door), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    )


def run_two(words: list[str], door: str = "run_qa_adapter.py") -> str:
    """Runs a door in two processes; what it said on stderr."""
    process = start([*TORCHRUN, "--standalone", "--nproc_per_node", "2"], door, words)
    errors = process.communicate(timeout=900)[1]
    assert process.returncode == 0, errors[-4000:]
    return errors


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read(folder)["losses"]]


def scores(folder: Path) -> list[tuple[float, float]]:
    return [(entry["eval_f1"], entry["eval_exact"]) for entry in read(folder)["history"]]


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight of the saved folder, by file and name."""
    files = sorted((folder / "adapters-fusion").rglob("*.safetensors"))
    found = {f"{file.name} {name}": weight for file in files for name, weight in load_file(file).items()}
    assert len(files) == 5 and all(weight.numel() for weight in found.values())  # three adapters, fusion, head
    return found


def assert_same_weights(first: Path, second: Path, tolerance: float) -> None:
    ones, others = saved_weights(first), saved_weights(second)
    assert ones.keys() == others.keys()
    # The loss does not depend on the head's bias, which shifts all scores alike: Adam follows the noise of a zero.
    bias = next(name for name in ones if name.endswith("qa_outputs.bias"))
    for name in ones.keys() - {bias}:
        torch.testing.assert_close(ones[name], others[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def one(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert run_qa_adapter.main(words(folder, 8)) == 0
    return folder


@pytest.fixture(scope="module", params=WAYS)
def two(request: pytest.FixtureRequest, words: Words, one: Path) -> tuple[Path, list[str]]:
    """The same in two processes, half the batch each, and the command line."""
    folder = one.parent / f"two{len(list(one.parent.iterdir()))}"
    command = words(folder, 4, *request.param)
    errors = run_two(command)
    assert "FutureWarning" not in errors
    return folder, command


def test_two_processes_compute_what_one_does(one: Path, two: tuple[Path, list[str]]) -> None:
    folder = two[0]
    assert read(folder)["options"]["processes"] == 2 and read(folder)["status"] == "finished"
    assert losses(folder) == pytest.approx(losses(one), abs=LOSS) and len(losses(one)) == 9
    assert scores(folder) == scores(one) and read(folder)["best"] == read(one)["best"]
    assert [entry["eval_loss"] for entry in read(folder)["history"]] == pytest.approx(
        [entry["eval_loss"] for entry in read(one)["history"]], rel=1e-6
    )
    assert_same_weights(one, folder, 5e-6)
    assert (folder / "eval_predictions.json").read_bytes() == (one / "eval_predictions.json").read_bytes()
    assert_same_attention(one, folder)


def assert_same_attention(first: Path, second: Path) -> None:
    """The last batch of two processes holds windows twice, which must not count twice."""
    ones, others = (json.loads((run / "fusion_attention.json").read_text(encoding="utf-8")) for run in (first, second))
    windows = read(first)["data"]["eval"]["windows"]
    assert (ones["windows"], others["windows"], windows % 8 > 0) == (windows, windows, True)
    for part in ("question", "context", "all"):
        torch.testing.assert_close(torch.tensor(ones[part]), torch.tensor(others[part]), rtol=0, atol=1e-5)


def put_back(folder: Path, to: Path) -> None:
    """A copy of a finished run as a power cut after `STEP_KEPT` steps would have left it."""
    shutil.copytree(folder, to)
    shutil.rmtree(to / "adapters-fusion")
    for checkpoint in to.glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > STEP_KEPT:
            shutil.rmtree(checkpoint)
    document = read(to) | {"status": "running"}
    (to / "run.json").write_text(json.dumps(document))


def test_a_run_goes_on_as_if_nothing_had_happened(two: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, command = two
    again = tmp_path / "again"
    put_back(folder, again)
    run_two([str(again) if word == str(folder) else word for word in command])
    assert losses(again) == losses(folder) and scores(again) == scores(folder)
    assert read(again)["best"] == read(folder)["best"]
    for name, weight in saved_weights(folder).items():
        assert torch.equal(weight, saved_weights(again)[name]), name


def test_one_plain_process_answers_alike(two: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, command = two
    dev = command[command.index("--validation_file") + 1]
    asked = ["--model_name_or_path", str(folder / "base"), "--load_adapter", str(folder), "--do_eval", *WINDOWS, *QUIET]
    assert run_qa_adapter.main([*asked, "--validation_file", dev, "--output_dir", str(tmp_path / "plain")]) == 0
    answers = [(place / "eval_predictions.json").read_bytes() for place in (folder, tmp_path / "plain")]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("stage", [2, 3])
@needs_deepspeed
def test_half_precision_is_saved_in_full(words: Words, one: Path, tmp_path: Path, stage: int) -> None:
    command = words(tmp_path / "run", 4, "--deepspeed", str(ROOT / f"ds_config_zero{stage}.json"), "--bf16", "True")
    run_two(command)
    assert losses(tmp_path / "run") == pytest.approx(losses(one), abs=0.02)  # bfloat16: 8 bits
    whole, first = saved_weights(tmp_path / "run"), saved_weights(one)
    assert {weight.dtype for weight in whole.values()} == {torch.float32}
    for name in whole:
        rounded = torch.equal(whole[name], whole[name].bfloat16().float())
        assert not rounded or whole[name].abs().max() == 0, name  # the optimizer's copies, not the engine's
        if name.startswith("adapter.safetensors"):
            assert torch.equal(whole[name], first[name])  # frozen: as they were drawn


@pytest.mark.parametrize("door", ["run_mlm_adapter.py", "run_ner_adapter.py", "run_qa_adapter.py"])
@needs_deepspeed
def test_every_door_trains_under_zero_3(words: Words, tmp_path: Path, door: str) -> None:
    asked = words(tmp_path, 4)
    base, files = asked[1], asked.index("--train_file")
    questions = asked[files : files + 4]
    texts, sentences = tmp_path / "texts.txt", tmp_path / "sentences.conll"
    texts.write_text("\n".join(one.context for one in make_questions(60, 5)), encoding="utf-8")
    sentences.write_text("Ana B-PER\nnasceu O\nem O\nRecife B-LOC\n\n" * 12, encoding="utf-8")
    data = {
        "run_mlm_adapter.py": ["--train_file", str(texts), "--block_size", "32", "--max_train_samples", "16"],
        "run_ner_adapter.py": ["--train_file", str(sentences), "--validation_file", str(sentences), *WINDOWS[:2]],
        "run_qa_adapter.py": [*questions, *WINDOWS, "--train_adapter", "False"],
    }[door]
    common = ["--model_name_or_path", base, "--do_train", "--do_eval", "--num_train_epochs", "1", *QUIET, *data]
    run_two([*common, "--output_dir", str(tmp_path / "run"), "--deepspeed", str(ROOT / "ds_config_zero3.json")], door)
    saved = [file for file in (tmp_path / "run").rglob("*.safetensors") if "checkpoint" not in str(file)]
    weights = [weight for file in saved for weight in load_file(file).values()]
    assert saved and all(weight.numel() and weight.isfinite().all() for weight in weights)
    assert read(tmp_path / "run")["status"] == "finished"


def test_two_machines_share_an_output_folder(words: Words, one: Path, tmp_path: Path) -> None:
    """As far as that can be had on one: a launcher each, started in folders of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    started = []
    for node in range(2):
        cwd = tmp_path / f"node{node}"
        cwd.mkdir()
        launcher = [*TORCHRUN, *meeting, "--node_rank", str(node)]
        command = words(tmp_path / "shared", 4)
        if not torch.accelerator.is_available():  # nobody must be told
            command = command[: command.index("--use_cpu")]
        started.append(start(launcher, "run_qa_adapter.py", command, cwd))
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], said[0][1][-3000:] + said[1][1][-3000:]
    assert losses(tmp_path / "shared") == pytest.approx(losses(one), abs=LOSS)
    assert scores(tmp_path / "shared") == scores(one)
    assert "setup: " in said[0][0] and "setup: " not in said[1][0]  # the first one speaks
    assert [list((tmp_path / f"node{node}").iterdir()) for node in range(2)] == [[], []]


def test_bad_input_is_said_once(words: Words, one: Path, tmp_path: Path) -> None:
    """What only the first process finds out ends them all: here a folder that holds the run of one process."""
    shutil.copytree(one, tmp_path / "one")
    process = start(
        [*TORCHRUN, "--standalone", "--nproc_per_node", "2"], "run_qa_adapter.py", words(tmp_path / "one", 8)
    )
    errors = process.communicate(timeout=600)[1]
    told = [line for line in errors.splitlines() if line.startswith(("error:", "[rank"))]
    assert process.returncode == 1 and len(told) == 1
    assert "holds a run with other options (processes was 1, now 2)" in told[0]


def test_fsdp_is_refused_with_the_way_out(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="give --deepspeed ds_config_zero3.json"):
        run_qa_adapter.main(words(tmp_path / "run", 8, "--fsdp", "full_shard"))
    for variable, said in (("FSDP", "give --deepspeed ds_config_zero3.json"), ("DEEPSPEED", "accelerate's DeepSpeed")):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
            patch.setenv(f"ACCELERATE_USE_{variable}", "true")  # what `accelerate launch` sets
            run_qa_adapter.main(words(tmp_path / "run", 8))
    assert not (tmp_path / "run").exists()
