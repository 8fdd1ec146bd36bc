"""Finding runs, their status, and grouping them over seeds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import groups_in, make_run, update_run
from support.problems import problems_of
from support.scripts import ROOT

from adapter_qa.reporting.runs import (
    Run,
    RunDocument,
    differing_settings,
    find_runs,
    group_runs,
    mean_std,
    same_evaluation,
    short_names,
)

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
    assert differing_settings(groups) == ["train_data", "eval_data"]


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


def test_options_that_did_not_exist_or_only_print_make_no_other_group(tmp_path: Path) -> None:
    make_run(tmp_path / "old", 50.0, seed=1)
    new: dict[str, Any] = {
        "question_column": "question",
        "text_column": None,
        "keep_checkpoint": True,
        "log_level": "info",
    }
    make_run(tmp_path / "new", 52.0, seed=2, **new)
    make_run(tmp_path / "other", 40.0, seed=3, question_column="pergunta")
    groups = groups_in(tmp_path)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert differing_settings(groups) == ["question_column"]


# ---------------------------------------------------------------- what can be compared

EVAL = {"file": "a/dev.json", "sha256": "b" * 64, "questions": 200}


def test_groups_are_divided_by_what_they_were_evaluated_on(tmp_path: Path) -> None:
    sources = {
        "all": EVAL, "moved": EVAL | {"file": "z/d.json"}, "few": EVAL | {"questions": 50},
        "other": EVAL | {"sha256": "c" * 64}, "v2": EVAL,
    }  # fmt: skip
    for number, (name, source) in enumerate(sources.items()):
        run = make_run(tmp_path / name, 50.0 + number, weight_decay=number, version_2_with_negative=name == "v2")
        update_run(run, data={"eval": source})
    divided = same_evaluation(groups_in(tmp_path))
    names = [[group.first.folder.name for group in members] for members in divided]
    assert sorted(names) == [["few"], ["moved", "all"], ["other"], ["v2"]]
    assert names[-1] == ["few"]
    assert [group.number for members in divided for group in members] == [1, 2, 3, 4, 5]


def test_perplexity_is_compared_for_the_same_base_only(tmp_path: Path) -> None:
    for name, base in (("a", "bert"), ("b", "bert"), ("c", "roberta")):
        run = make_run(tmp_path / name, model_name_or_path=base, weight_decay=ord(name))
        update_run(run, script="run_mlm_adapter.py", data={"eval": {"held_out_of": "x/t.txt", "blocks": 50}})
    assert sorted(len(members) for members in same_evaluation(groups_in(tmp_path))) == [1, 2]


@pytest.mark.parametrize(
    ("script", "source", "options", "text"),
    [
        ("qa", EVAL, {}, "200 questions of dev.json"),
        ("qa", EVAL | {"questions": 1999}, {"max_eval_samples": 1999, "version_2_with_negative": True},
         "1,999 questions of dev.json (--max_eval_samples 1999), scored as SQuAD v2.0"),
        ("qa", {"files": [{"file": "x/a.json"}, {"file": "b.json"}]}, {}, "questions of a.json b.json"),
        ("qa", {"dataset": "o/squad", "config": "pt", "split": "validation", "questions": 3}, {},
         "3 questions of o/squad pt validation"),
        ("ner", {"file": "d.conll", "sentences": 7}, {}, "7 sentences of d.conll"),
        ("mlm", {"held_out_of": "x/t.txt", "blocks": 5}, {}, "5 blocks of text held out of t.txt, tokens of base"),
        ("qa", None, {}, "nothing that run.json names"),
    ],
)  # fmt: skip
def test_evaluations_are_described(
    tmp_path: Path, script: str, source: dict[str, object] | None, options: dict[str, Any], text: str
) -> None:
    update_run(
        make_run(tmp_path, **options),
        script=f"run_{script}_adapter.py",
        data={} if source is None else {"eval": source},
    )
    assert groups_in(tmp_path)[0].first.describe_evaluation() == text


DERIVED = "outputs/b_t/qa/lr{}_bs8_GAS2_fp16True_metricf1{}"


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["outputs/qa_1", "outputs/qa_2"], ["qa_1", "qa_2"]),
        (["a/qa", "b/qa", "b/x/qa"], ["a/qa", "b/qa", "x/qa"]),
        (["a", "b/a"], ["a", "b/a"]),
        ([DERIVED.format("0.1", ""), "outputs/ner"], ["lr0.1", "ner"]),
        ([DERIVED.format("0.1", ""), DERIVED.format("0.2", "")], ["lr0.1", "lr0.2"]),
        ([DERIVED.format("0.1", "_warmup_ratio0.1"), DERIVED.format("0.1", "_warmup_ratio0.2_seed3")],
         ["lr0.1…warmup_ratio0.1", "lr0.1…warmup_ratio0.2"]),
        ([DERIVED.format("0.1", ""), DERIVED.format("0.1", "_seed3")], ["lr0.1", "lr0.1…seed3"]),
        ([DERIVED.format("0.1", "_warmup_ratio0.1_adapt_1bf477c6"), DERIVED.format("0.1", "_adapter_config0")],
         ["lr0.1…warmup_ratio0.1", "lr0.1"]),
        ([DERIVED.format("0.1", ""), DERIVED.format("0.1", "").replace("/qa/", "/full/")],
         ["qa/lr0.1", "full/lr0.1"]),
    ],
)  # fmt: skip
def test_names_of_folders_are_as_short_as_they_can_be(folders: list[str], names: list[str]) -> None:
    options = dict.fromkeys(["warmup_ratio", "adapter_config"])
    document = RunDocument("finished", "run_qa_adapter.py", options)
    assert short_names([Run(Path(folder), "finished", document) for folder in folders]) == names


# ---------------------------------------------------------------- order and status


def test_groups_are_sorted_by_task_and_score_with_the_unfinished_runs_of_a_task_last(tmp_path: Path) -> None:
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
        ("high", "finished"), ("low", "finished"), ("unscored", "finished"),
        ("failed", "failed"), ("killed", "killed"), ("stopped", "interrupted"),
        ("ner", "finished"), ("mlm_good", "finished"), ("mlm_bad", "finished"),
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
