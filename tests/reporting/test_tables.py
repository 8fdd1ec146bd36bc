"""Runs found, brought together over seeds, and shown as a table (results.py, tables.py, report_qa.py --table)."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import change_run, made_run
from support.scripts import ROOT, run_script

import report_qa
from adapter_qa.core.errors import UserError
from adapter_qa.reporting.runs import Group, differing, find_runs, group_runs, mean_std
from adapter_qa.reporting.tables import as_csv, as_json, as_markdown, as_terminal, duration, shorten


def groups_of(*folders: Path) -> list[Group]:
    runs, unread = find_runs(folders)
    groups, notes = group_runs(runs)
    assert unread == [] and notes == []
    return groups


def lines(text: str) -> list[list[str]]:
    """Cells of a terminal table; two spaces part them."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def stopped(call: Any, *args: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        call(*args)
    return caught.value.problems


# ---------------------------------------------------------------- seeds


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path: Path) -> None:
    scores = {3: 52.0, 1: 50.0, 2: 57.0}
    for seed, f1 in scores.items():
        made_run(tmp_path / f"s{seed}", f1, seed=seed, run_name=f"r{seed}", logging_dir=f"l{seed}")
    made_run(tmp_path / "other", 60.0, seed=1, learning_rate=3e-4)
    best, three = groups_of(tmp_path)
    assert [run.seed for run in three.runs] == [1, 2, 3]
    assert three.f1().mean == 53.0 and three.f1().deviation == pytest.approx(statistics.stdev([50, 57, 52]), abs=1e-12)
    assert three.exact().mean == 43.0 and three.train_seconds().mean == 113.0 and three.best_epoch().mean == 2.0
    assert (best.f1().mean, best.f1().deviation) == (60.0, None)  # of one seed nothing is known
    assert differing([best, three]) == ["learning_rate"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], (None, None)), ([None], (None, None)), ([2.0], (2.0, None)), ([1.0, 3.0], (2.0, 2**0.5)),
     ([1.0, None, 3.0, float("nan")], (2.0, 2**0.5))],
)  # fmt: skip
def test_mean_and_deviation_of_the_sample(values: list[Any], expected: tuple[Any, Any]) -> None:
    found = mean_std(values)
    assert (found.mean, found.deviation) == (expected[0], pytest.approx(expected[1]) if expected[1] else None)


def test_other_data_under_the_same_name_is_another_group(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 50.0, seed=1)
    change_run(made_run(tmp_path / "b", 51.0, seed=2), data={"eval": {"file": "dev.json", "sha256": "c" * 64}})
    groups = groups_of(tmp_path)
    assert len(groups) == 2 and differing(groups) == ["eval_data", "train_data"]


def test_a_chain_of_runs_with_their_seeds_is_a_group_at_each_step(tmp_path: Path) -> None:
    for seed in (1, 2):
        made_run(tmp_path / f"qa_{seed}", 40.0 + seed, seed=seed)
        given = [f"qa={tmp_path}/qa_{seed}", f"ner={tmp_path}/none"]
        made_run(tmp_path / f"fusion_{seed}", 60.0 + seed, seed=seed, fuse_adapters=given)
    fusion, qa = groups_of(tmp_path)
    assert (fusion.f1().mean, qa.f1().mean) == (61.5, 41.5)
    change_run(tmp_path / "qa_2", options={"learning_rate": 0.5, "seed": 2, "do_train": True})
    assert [group.f1().mean for group in groups_of(tmp_path)] == [62.0, 61.0, 42.0, 41.0]


def test_relative_paths_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        made_run(tmp_path / "outputs" / f"qa_{seed}", 41.0, seed=seed, output_dir=f"outputs/qa_{seed}")
        made_run(
            tmp_path / "outputs" / "f" / f"{seed}", 60.0, seed=seed, output_dir=f"outputs/f/{seed}",
            load_lang_adapter=f"outputs/qa_{seed}",
        )  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [len(group.runs) for group in groups_of(Path("../outputs"))] == [2, 2]


def test_runs_that_stand_on_one_another_in_a_circle_end(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 40.0, load_adapter=str(tmp_path / "b"))
    made_run(tmp_path / "b", 41.0, load_adapter=str(tmp_path / "a"))
    assert len(groups_of(tmp_path)) == 2


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 50.0)
    made_run(tmp_path / "b", 52.0)
    groups, notes = group_runs(find_runs([tmp_path])[0])
    assert [group.f1().mean for group in groups] == [52.0]
    assert notes == [f"{tmp_path}/a: the same options and seed as {tmp_path}/b, which counts"]


# ---------------------------------------------------------------- order and status


def test_sorted_by_f1_unfinished_last_tasks_apart(tmp_path: Path) -> None:
    made_run(tmp_path / "low", 30.0, weight_decay=0.1)
    made_run(tmp_path / "high", 80.0, weight_decay=0.2)
    made_run(tmp_path / "unscored", None, weight_decay=0.3)
    made_run(tmp_path / "failed", 99.0, status="failed", weight_decay=0.4)
    made_run(tmp_path / "killed", 98.0, status="running", weight_decay=0.5)
    made_run(tmp_path / "stopped", None, status="interrupted", weight_decay=0.6)
    for name, perplexity in (("mlm_bad", 9.0), ("mlm_good", 5.0)):
        change_run(made_run(tmp_path / name, 0.0, weight_decay=perplexity), script="run_mlm_adapter.py",
                   metrics={"eval": {"eval_perplexity": perplexity}})  # fmt: skip
    change_run(made_run(tmp_path / "ner", 90.0), script="run_ner_adapter.py")
    found = [(group.first.folder.name, group.first.status) for group in groups_of(tmp_path)]
    assert found == [
        ("high", "finished"), ("low", "finished"), ("unscored", "finished"), ("ner", "finished"),
        ("mlm_good", "finished"), ("mlm_bad", "finished"),
        ("failed", "failed"), ("killed", "killed"), ("stopped", "interrupted"),
    ]  # fmt: skip


def test_a_run_at_work_is_running(tmp_path: Path) -> None:
    made_run(tmp_path, 50.0, status="running")
    hold = (
        "import sys; from pathlib import Path; from adapter_qa.runs.lock import lock_run_dir; "
        "lock_run_dir(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert groups_of(tmp_path)[0].first.status == "running"
        holder.communicate()
    assert groups_of(tmp_path)[0].first.status == "killed"


@pytest.mark.parametrize("recorded", ["trials/0001", "outputs/sweep/trials/0001", "{folder}/trials/0001"])
def test_pruned_by_the_sweep_above(tmp_path: Path, recorded: str) -> None:
    for number in (0, 1):
        made_run(tmp_path / "trials" / f"000{number}", 40.0 + number, status="interrupted", seed=number)
    trials = [
        {"state": "failed", "folder": recorded.format(folder=tmp_path).replace("0001", "0000")},
        {"state": "PRUNED", "folder": recorded.format(folder=tmp_path)},
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": trials}), encoding="utf-8")
    found = {group.first.folder.name: group.first.status for group in groups_of(tmp_path / "trials")}
    assert found == {"0000": "interrupted", "0001": "pruned"}


def test_what_has_no_result_yet_shows_its_best_so_far(tmp_path: Path) -> None:
    made_run(tmp_path, 50.0, status="failed")
    history = [{"eval_f1": f1, "eval_exact": 1.0, "epoch": epoch} for epoch, f1 in ((1.0, 44.0), (2.0, 40.0))]
    change_run(tmp_path, history=history)
    assert groups_of(tmp_path)[0].f1().mean == 44.0


def test_what_was_only_evaluated_trained_nothing(tmp_path: Path) -> None:
    made_run(tmp_path, 10.0, do_train=False)
    (run,) = find_runs([tmp_path])[0]
    assert (run.setup, run.trainable()) == ("Stack[qa], not trained", 0)


# ---------------------------------------------------------------- strangers' files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON at line 1, column 2: Expecting property name enclosed in double quotes; the file seems to be "
              "cut off; the file is damaged or incomplete"),
        ("[]", "holds a list where an object is expected"),
        ('{"status": "finished"}', "not as the training scripts write it: Object missing required field `script`"),
        ('{"status": "finished", "script": "x.py", "options": {}}',
         "script is 'x.py'; known are run_qa_adapter.py, run_ner_adapter.py, run_mlm_adapter.py"),
        ('{"status": "finished", "script": "run_qa_adapter.py", "options": {}, "metrics": {"eval": {"eval_f1": "9"}}}',
         "not as the training scripts write it: Expected `float | null`, got `str` - at `$.metrics.eval.eval_f1`"),
    ],
)  # fmt: skip
def test_a_broken_run_is_a_line_and_the_rest_goes_on(tmp_path: Path, content: str, reason: str) -> None:
    made_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(content, encoding="utf-8")
    runs, unread = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert unread == [f"{tmp_path}/bad/run.json: {reason}"]
    assert stopped(find_runs, [tmp_path / "bad"]) == unread


def test_all_folders_without_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made_run(tmp_path / "good")
    hint = "give a run's folder, or one that holds runs"
    assert stopped(find_runs, [tmp_path / "none", tmp_path / "good", tmp_path / "empty"]) == [
        f"{tmp_path}/none: no such folder; {hint}", f"{tmp_path}/empty: holds no run.json; {hint}"
    ]  # fmt: skip


def test_a_run_named_in_several_ways_is_one(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    runs, _ = find_runs([tmp_path, tmp_path / "a", tmp_path / "a" / "run.json"])
    assert len(runs) == 1


# ---------------------------------------------------------------- the table


def test_the_terminal_table(tmp_path: Path) -> None:
    for seed, f1 in ((1, 50.0), (2, 53.0)):
        made_run(tmp_path / f"a{seed}", f1, seed=seed)
    made_run(tmp_path / "b", 45.123, learning_rate=3e-5)
    made_run(tmp_path / "c", 30.0, status="failed")
    text, left_out = as_terminal(groups_of(tmp_path), None)
    head = ["setup", "F1", "EM", "n", "best epoch", "trainable", "% of base", "learning_rate", "train time", "status"]
    assert left_out == [] and lines(text) == [
        [*head, "folder"],
        ["Stack[qa]", "51.50 ± 2.12", "41.50 ± 2.12", "2", "2", "120", "12.00", "0.0001", "1:52", "finished",
         f"{tmp_path}/a1 +1"],
        ["Stack[qa]", "45.12", "35.12", "1", "2", "120", "12.00", "3e-05", "1:45", "finished", f"{tmp_path}/b"],
        ["Stack[qa]", "30.00", "20.00", "1", "2", "120", "12.00", "0.0001", "failed", f"{tmp_path}/c"],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 79, 100, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    for number in range(3):
        made_run(tmp_path / ("x" * 100) / f"run {number}", 50.0 + number, weight_decay=0.1 * number)
    text, left_out = as_terminal(groups_of(tmp_path), width)
    assert max(map(len, text.splitlines())) <= width
    assert {"setup", "F1", "status"} <= set(lines(text)[0]) and set(left_out).isdisjoint(lines(text)[0])
    assert ("EM" in left_out) == (width < 79)


def test_text_is_shortened_in_its_middle() -> None:
    assert (shorten("abcdef", 6), shorten("abcdefghij", 6)) == ("abcdef", "ab…hij")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (3599.6, "1:00:00"), (7385, "2:03:05")],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(mean_std([seconds])) == shown


def test_csv_has_raw_numbers(tmp_path: Path) -> None:
    for seed, f1 in ((1, 50.0), (2, 53.0)):
        made_run(tmp_path / f"a, {seed}", f1, seed=seed)
    made_run(tmp_path / "b", 100 / 3, learning_rate=3e-5)
    first, second = csv.DictReader(io.StringIO(as_csv(groups_of(tmp_path))))
    assert float(first["f1_mean"]) == 51.5 and float(first["f1_deviation"]) == statistics.stdev([50, 53])
    assert first["folders"] == f"{tmp_path}/a, 1 {tmp_path}/a, 2" and first["seeds"] == "1 2" and first["n"] == "2"
    assert float(second["f1_mean"]) == 100 / 3 and second["f1_deviation"] == "" and second["learning_rate"] == "3e-05"


def test_json_has_every_run_and_no_nan(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 50.0, seed=1)
    made_run(tmp_path / "b", 53.0, seed=2)
    change_run(tmp_path / "b", metrics={"eval": {"eval_f1": 53.0, "eval_loss": float("nan")}})
    (group,) = json.loads(as_json(groups_of(tmp_path)), parse_constant=pytest.fail)
    assert group["f1_mean"] == 51.5 and group["n"] == 2 and group["options"] == {"learning_rate": 1e-4}
    assert [(run["seed"], run["f1"], run["loss"]) for run in group["runs"]] == [(1, 50.0, 2.0), (2, 53.0, None)]


def test_markdown_keeps_its_cells(tmp_path: Path) -> None:
    made_run(tmp_path / "a|b", 50.0)
    head, rule, row = as_markdown(groups_of(tmp_path)).splitlines()
    assert head.count("|") == rule.count("|") == row.replace("\\|", "").count("|")
    assert row.endswith(f"| {tmp_path}/a\\|b |")


def test_a_terminal_shows_and_does_not_obey(tmp_path: Path) -> None:
    change_run(made_run(tmp_path), setup="\x1b[31mred")
    assert "\x1b" not in as_terminal(groups_of(tmp_path), None)[0] + as_markdown(groups_of(tmp_path))


# ---------------------------------------------------------------- the door


def test_the_door_prints_and_writes(tmp_path: Path) -> None:
    made_run(tmp_path / "São Luís" / "a b", 50.0)
    (tmp_path / "São Luís" / "run.json").write_text("{", encoding="utf-8")
    done = run_script("report_qa.py", "--table", tmp_path, "--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json")
    assert done.returncode == 0 and lines(done.stdout)[1][:2] == ["Stack[qa]", "50.00"]
    assert "São Luís/a b" in done.stdout and done.stderr.startswith(f"note: {tmp_path}/São Luís/run.json: not JSON")
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))[0]["f1_mean"] == 50.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["São Luís", "t.csv", "t.json"]
    again = run_script("report_qa.py", "--table", tmp_path, "--csv", tmp_path / "t.csv", "--json", "-")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"error: --csv {tmp_path}/t.csv: exists; add --overwrite or give another file\n"


def test_the_door_prints_one_format_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(tmp_path / "a", 50.0)
    assert report_qa.main(["--table", str(tmp_path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["f1_mean"] == 50.0


def test_files_that_cannot_be_written_are_all_named(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    given = ["--table", str(tmp_path), "--csv", "-", "--json", "-", "--markdown", str(tmp_path / "none" / "t.md")]
    assert stopped(report_qa.main, given) == [
        "- (print) can be given to one of --csv, --markdown, --json",
        f"--markdown {tmp_path}/none/t.md: there is no folder {tmp_path}/none; make it first",
    ]
    assert stopped(report_qa.main, ["--table", str(tmp_path), "--csv", str(tmp_path)]) == [
        f"--csv {tmp_path}: is a folder; give a file"
    ]


def test_a_lock_that_may_only_be_read_can_be_asked(tmp_path: Path) -> None:
    made_run(tmp_path / "sub", 50.0, status="running")
    (tmp_path / "sub" / "run.lock").write_text("process 1 on x", encoding="utf-8")
    os.chmod(tmp_path / "sub" / "run.lock", 0o444)
    assert groups_of(tmp_path)[0].first.status == "killed"


def test_the_table_needs_neither_matplotlib_nor_jinja_nor_torch(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    blocked = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'jinja2', 'torch', 'transformers']))"
    code = f"{blocked}; import report_qa; sys.exit(report_qa.main(['--table', sys.argv[1]]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "Stack[qa]" in done.stdout
