"""Finding runs, their status, and grouping them over seeds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import groups_in, make_run, update_run
from support.problems import problems_of
from support.scripts import ROOT

from adapter_qa.reporting.runs import differing_settings, find_runs, group_runs, mean_std

# ---------------------------------------------------------------- seeds


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path: Path) -> None:
    for seed, f1 in {3: 52.0, 1: 50.0, 2: 57.0}.items():
        make_run(tmp_path / f"s{seed}", f1, seed=seed, run_name=f"r{seed}", logging_dir=f"l{seed}")
    make_run(tmp_path / "other", 60.0, seed=1, learning_rate=3e-4)
    best, three = groups_in(tmp_path)
    assert (best.number, three.number) == (1, 2)
    assert [run.seed for run in three.runs] == [1, 2, 3]
    assert three.mean_std("f1").mean == 53.0
    assert three.mean_std("f1").deviation == pytest.approx(statistics.stdev([50, 57, 52]), abs=1e-12)
    assert three.mean_std("exact").mean == 43.0
    assert three.mean_std("train_seconds").mean == 113.0
    assert three.mean_std("best_epoch").mean == 2.0
    assert (best.mean_std("f1").mean, best.mean_std("f1").deviation) == (60.0, None)
    assert differing_settings([best, three]) == ["learning_rate"]


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [([], None, None), ([None], None, None), ([2.0], 2.0, None), ([1.0, 3.0], 2.0, 2**0.5),
     ([1.0, None, 3.0, float("nan")], 2.0, 2**0.5)],
)  # fmt: skip
def test_mean_and_sample_deviation(values: list[float | None], mean: float | None, deviation: float | None) -> None:
    result = mean_std(values)
    assert result.mean == mean
    assert result.deviation == (pytest.approx(deviation) if deviation else None)


def test_other_data_under_the_same_name_is_another_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0, seed=1)
    update_run(make_run(tmp_path / "b", 51.0, seed=2), data={"eval": {"file": "dev.json", "sha256": "c" * 64}})
    groups = groups_in(tmp_path)
    assert len(groups) == 2
    assert differing_settings(groups) == ["eval_data", "train_data"]


def test_a_chain_of_runs_repeated_with_seeds_is_one_group_per_step(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / f"qa_{seed}", 40.0 + seed, seed=seed)
        adapters = [f"qa={tmp_path}/qa_{seed}", f"ner={tmp_path}/none"]
        make_run(tmp_path / f"fusion_{seed}", 60.0 + seed, seed=seed, fuse_adapters=adapters)
    fusion, qa = groups_in(tmp_path)
    assert (fusion.mean_std("f1").mean, qa.mean_std("f1").mean) == (61.5, 41.5)
    update_run(tmp_path / "qa_2", options={"learning_rate": 0.5, "seed": 2, "do_train": True})
    assert [group.mean_std("f1").mean for group in groups_in(tmp_path)] == [62.0, 61.0, 42.0, 41.0]


def test_relative_paths_start_where_the_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        make_run(tmp_path / "outputs" / f"qa_{seed}", 41.0, seed=seed, output_dir=f"outputs/qa_{seed}")
        make_run(
            tmp_path / "outputs" / "f" / f"{seed}", 60.0, seed=seed, output_dir=f"outputs/f/{seed}",
            load_lang_adapter=f"outputs/qa_{seed}",
        )  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [len(group.runs) for group in groups_in(Path("../outputs"))] == [2, 2]


def test_runs_that_refer_to_each_other_do_not_recurse_forever(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 40.0, load_adapter=str(tmp_path / "b"))
    make_run(tmp_path / "b", 41.0, load_adapter=str(tmp_path / "a"))
    assert len(groups_in(tmp_path)) == 2


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0)
    make_run(tmp_path / "b", 52.0)
    groups, notes = group_runs(find_runs([tmp_path])[0])
    assert [group.mean_std("f1").mean for group in groups] == [52.0]
    assert notes == [f"{tmp_path}/a: left out, because {tmp_path}/b has the same options and seed"]


# ---------------------------------------------------------------- order and status


def test_groups_are_sorted_by_task_and_score_with_unfinished_runs_last(tmp_path: Path) -> None:
    make_run(tmp_path / "low", 30.0, weight_decay=0.1)
    make_run(tmp_path / "high", 80.0, weight_decay=0.2)
    make_run(tmp_path / "unscored", None, weight_decay=0.3)
    make_run(tmp_path / "failed", 99.0, status="failed", weight_decay=0.4)
    make_run(tmp_path / "killed", 98.0, status="running", weight_decay=0.5)
    make_run(tmp_path / "stopped", None, status="interrupted", weight_decay=0.6)
    for name, perplexity in (("mlm_bad", 9.0), ("mlm_good", 5.0)):
        update_run(make_run(tmp_path / name, 0.0, weight_decay=perplexity), script="run_mlm_adapter.py",
                   metrics={"eval": {"eval_perplexity": perplexity}})  # fmt: skip
    update_run(make_run(tmp_path / "ner", 90.0), script="run_ner_adapter.py")
    groups = groups_in(tmp_path)
    assert [group.number for group in groups] == list(range(1, 10))
    assert [(group.first.folder.name, group.first.status) for group in groups] == [
        ("high", "finished"), ("low", "finished"), ("unscored", "finished"), ("ner", "finished"),
        ("mlm_good", "finished"), ("mlm_bad", "finished"),
        ("failed", "failed"), ("killed", "killed"), ("stopped", "interrupted"),
    ]  # fmt: skip


def test_a_run_is_running_while_its_process_holds_the_lock(tmp_path: Path) -> None:
    make_run(tmp_path, 50.0, status="running")
    code = (
        "import sys; from pathlib import Path; from adapter_qa.runs.lock import lock_run_dir; "
        "lock_run_dir(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert groups_in(tmp_path)[0].first.status == "running"
        holder.communicate()
    assert groups_in(tmp_path)[0].first.status == "killed"


def test_a_read_only_lock_file_can_be_tested(tmp_path: Path) -> None:
    make_run(tmp_path / "sub", 50.0, status="running")
    (tmp_path / "sub" / "run.lock").write_text("process 1 on x", encoding="utf-8")
    os.chmod(tmp_path / "sub" / "run.lock", 0o444)
    assert groups_in(tmp_path)[0].first.status == "killed"


@pytest.mark.parametrize("recorded", ["trials/0001", "outputs/sweep/trials/0001", "{folder}/trials/0001"])
def test_a_run_that_its_sweep_pruned(tmp_path: Path, recorded: str) -> None:
    for number in (0, 1):
        make_run(tmp_path / "trials" / f"000{number}", 40.0 + number, status="interrupted", seed=number)
    trials = [
        {"state": "failed", "folder": recorded.format(folder=tmp_path).replace("0001", "0000")},
        {"state": "PRUNED", "folder": recorded.format(folder=tmp_path)},
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": trials}), encoding="utf-8")
    statuses = {group.first.folder.name: group.first.status for group in groups_in(tmp_path / "trials")}
    assert statuses == {"0000": "interrupted", "0001": "pruned"}


def test_a_run_without_a_result_has_the_score_of_its_best_evaluation(tmp_path: Path) -> None:
    make_run(tmp_path, 50.0, status="failed")
    history = [{"eval_f1": f1, "eval_exact": 1.0, "epoch": epoch} for epoch, f1 in ((1.0, 44.0), (2.0, 40.0))]
    update_run(tmp_path, history=history)
    assert groups_in(tmp_path)[0].mean_std("f1").mean == 44.0


def test_a_run_that_only_evaluated_trained_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, 10.0, do_train=False)
    (run,) = find_runs([tmp_path])[0]
    assert (run.setup, run.trainable()) == ("Stack[qa], not trained", 0)


# ---------------------------------------------------------------- damaged and foreign files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON at line 1, column 2: Expecting property name enclosed in double quotes; the file seems to be "
              "cut off; the file is damaged or incomplete"),
        ("[]", "holds a list where an object is expected"),
        ('{"status": "finished"}', "does not come from a training script: Object missing required field `script`"),
        ('{"status": "finished", "script": "x.py", "options": {}}',
         "script is 'x.py'; must be one of run_qa_adapter.py, run_ner_adapter.py, run_mlm_adapter.py"),
        ('{"status": "finished", "script": "run_qa_adapter.py", "options": {}, "metrics": {"eval": {"eval_f1": "9"}}}',
         "does not come from a training script: Expected `float | null`, got `str` - at `$.metrics.eval.eval_f1`"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_reported_and_the_others_are_read(tmp_path: Path, content: str, reason: str) -> None:
    make_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(content, encoding="utf-8")
    runs, problems = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert problems == [f"{tmp_path}/bad/run.json: {reason}"]
    assert problems_of(find_runs, [tmp_path / "bad"]) == problems


def test_all_folders_without_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "good")
    hint = "give a run's folder, or one that holds runs"
    assert problems_of(find_runs, [tmp_path / "none", tmp_path / "good", tmp_path / "empty"]) == [
        f"{tmp_path}/none: no such folder; {hint}", f"{tmp_path}/empty: holds no run.json; {hint}"
    ]  # fmt: skip


def test_a_run_that_is_given_in_several_ways_is_read_once(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    runs, _ = find_runs([tmp_path, tmp_path / "a", tmp_path / "a" / "run.json"])
    assert len(runs) == 1
