"""compare_setups.sh: the runs that it starts, with a stand-in for Python."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.scripts import ROOT

STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
case "$*" in *"$FAILS"*) if [ "$SIGNAL" ]; then kill -"$SIGNAL" $$; fi; exit 1 ;; esac
"""


def compare_setups(folder: Path, fails: str, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script, in which Python calls that contain `fails` fail, and return it with the calls' arguments.

    With SIGNAL among the settings these calls are ended by that signal.
    """
    stub = folder / "stub"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    required = {"TRAIN": "t.json", "DEV": "d.json", "LANG_ADAPTER": "L", "NER_ADAPTER": "N", "OUT": str(folder / "out")}
    calls = folder / "calls"
    stand_in = {"PYTHON": str(stub), "CALLS": str(calls), "FAILS": fails, "SIGNAL": ""}
    environment = {**os.environ, **required, **stand_in, **settings}
    done = subprocess.run(
        ["bash", ROOT / "compare_setups.sh"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        preexec_fn=hang_up_by_default,
    )
    return done, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


def hang_up_by_default() -> None:
    """Let SIGHUP end the process: under nohup it is ignored, which a shell cannot change."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def option_values(calls: list[str], name: str) -> list[str]:
    return [match[1] for call in calls for match in re.finditer(rf"--{name} (\S+)", call)]


def test_all_setups_run_with_all_seeds_and_a_failure_stops_nothing(tmp_path: Path) -> None:
    done, calls = compare_setups(tmp_path, "out/qa_1", SEEDS="1 2", FULL_LR="9e-5", EXTRA="--max_train_samples 7")
    out = tmp_path / "out"
    order = [f"{out}/{setup}_{seed}" for seed in (1, 2) for setup in ("full", "qa", "lang_qa", "fusion")]
    assert option_values(calls, "output_dir") == [*order, f"{out}/report"]
    assert (done.returncode, done.stderr) == (1, "failed: qa_1 (exit code 1)\n")
    assert calls[-1] == f"report_qa.py {out} --output_dir {out}/report --overwrite"
    recipes = [f"recipes/{recipe}.yaml" for recipe in ("full", "qa", "qa", "fusion")]
    assert [call.split()[1] for call in calls[:-1]] == recipes * 2
    assert option_values(calls, "learning_rate") == ["9e-5"] * 2
    assert option_values(calls, "load_lang_adapter") == ["none", "L", "L"] * 2
    assert f"--fuse_adapters qa={out}/lang_qa_2 ner=N" in calls[7]
    assert all("--max_train_samples 7" in call for call in calls[:-1])
    assert option_values(calls, "seed") == ["1"] * 4 + ["2"] * 4


def test_failed_runs_are_named_although_the_report_fails_too(tmp_path: Path) -> None:
    done, calls = compare_setups(tmp_path, "out", SEEDS="1", SETUPS="full qa")
    assert (done.returncode, len(calls)) == (1, 3)
    assert done.stderr == "failed: full_1 (exit code 1)\nfailed: qa_1 (exit code 1)\n"
    done, _ = compare_setups(tmp_path, "report", SEEDS="1", SETUPS="full qa")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_run_that_the_system_kills_stops_nothing(tmp_path: Path) -> None:
    done, calls = compare_setups(tmp_path, "out/full_1", SEEDS="1 2", SETUPS="full", SIGNAL="KILL")
    assert len(calls) == 3
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "failed: full_1 (exit code 137)")


@pytest.mark.parametrize(("name", "code"), [("HUP", 129), ("INT", 130), ("TERM", 143)])
def test_a_run_that_is_stopped_ends_the_comparison(tmp_path: Path, name: str, code: int) -> None:
    done, calls = compare_setups(tmp_path, "out/full_1", SEEDS="1 2", SETUPS="full", SIGNAL=name)
    assert (done.returncode, len(calls)) == (code, 1)


def test_settings_replace_those_of_the_recipes(tmp_path: Path) -> None:
    settings = {
        "EPOCHS": "2",
        "REDUCTION": "4",
        "QA_LR": "1e-3",
        "FUSION_LR": "5e-4",
        "RECIPES": "recipes/reference_2021",
    }
    _, calls = compare_setups(tmp_path, "nothing", SEEDS="3", **settings)
    assert option_values(calls, "num_train_epochs") == ["2"] * 4
    assert option_values(calls, "adapter_reduction_factor") == ["4"] * 2
    assert option_values(calls, "learning_rate") == ["1e-3", "1e-3", "5e-4"]
    assert all(" recipes/reference_2021/" in call for call in calls[:-1])


def test_some_setups_without_failures(tmp_path: Path) -> None:
    done, calls = compare_setups(tmp_path, "nothing", SEEDS="3", SETUPS="qa full")
    assert (done.returncode, done.stderr, len(calls)) == (0, "", 3)


def test_an_unknown_setup_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done, calls = compare_setups(tmp_path, "nothing", SETUPS="full adapters")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == "error: SETUPS: adapters is unknown; choose from full, qa, lang_qa, fusion\n"
