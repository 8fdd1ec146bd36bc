"""Reading runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import groups_in, make_run, update_run
from support.problems import problems_of
from support.scripts import ROOT

from adapter_qa.reporting.runs import find_runs

EVAL = {"file": "a/dev.json", "sha256": "b" * 64, "questions": 200}


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
        ('{"status": "finished", "script": "run_qa_adapter.py", "options": {}, "\\ud83d": 1}',
         "does not come from a training script: 'utf-8' codec can't encode character '\\ud83d' in position 0: "
         "surrogates not allowed"),
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


@pytest.mark.parametrize("metrics", ["[1]", '{"predict": "x"}'])
def test_scores_of_a_split_that_are_damaged_are_reported(tmp_path: Path, metrics: str) -> None:
    make_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    document = f'{{"status": "finished", "script": "run_qa_adapter.py", "options": {{}}, "metrics": {metrics}}}'
    (tmp_path / "bad" / "run.json").write_text(document, encoding="utf-8")
    runs, problems = find_runs([tmp_path], "predict")
    assert [run.folder.name for run in runs] == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path}/bad/run.json: does not come from a training script: Expected `object")


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


def test_linked_runs_are_found_once(tmp_path: Path) -> None:
    outputs, scratch = tmp_path / "outputs", tmp_path / "scratch"
    make_run(outputs / "a")
    make_run(outputs / "b" / "deep")
    make_run(scratch / "x" / "c")
    make_run(scratch / "d")
    make_run(tmp_path / "beside")
    (scratch / "d" / "back").symlink_to(outputs)
    for name, target in (
        ("0", outputs / "a"),  # found under its own name
        ("1", scratch / "x"),
        ("2", scratch / "d"),
        ("3", scratch / "d"),
        ("circle", outputs),
        ("up", tmp_path),  # would leave the folder
        ("gone", tmp_path / "none"),
    ):
        (outputs / name).symlink_to(target)
    runs, problems = find_runs([outputs])
    assert [str(run.folder.relative_to(outputs)) for run in runs] == ["a", "b/deep", "1/c", "2"]
    assert problems == []
