"""The script report_qa.py: its options, and the files that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import make_answered_run, make_run, update_run
from support.problems import problems_of
from support.questions import make_questions, write_squad
from support.scripts import ROOT, run_script
from support.terminal import run_in_terminal

import report_qa
from adapter_qa.reporting.layout import existing_files


def test_table_is_printed_and_written(tmp_path: Path) -> None:
    make_run(tmp_path / "São Luís" / "a b", 50.0)
    (tmp_path / "São Luís" / "run.json").write_text("{", encoding="utf-8")
    done = run_script("report_qa.py", "--table", tmp_path, "--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].split()[:2] == ["Stack[qa]", "50.0"]
    assert "São Luís/a b" in done.stdout
    assert done.stderr.startswith(f"note: {tmp_path}/São Luís/run.json: not JSON")
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))[0]["f1_mean"] == 50.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["São Luís", "t.csv", "t.json"]
    again = run_script("report_qa.py", "--table", tmp_path, "--csv", tmp_path / "t.csv", "--json", "-")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"error: --csv {tmp_path}/t.csv: exists; add --overwrite or give another file\n"


def make_compared_runs(folder: Path) -> None:
    questions = make_questions(200)
    path = write_squad(folder / "dev.json", questions)
    for seed, wrong in ((1, 47), (2, 45)):
        make_answered_run(folder / f"qa_{seed}", path, questions, wrong=wrong, seed=seed)
    name = "base_train/qa_AdCompostack/lr{}_bs8_GAS2_eps1e-08_epochs5.0_patience3_wamlmFalse_fp16True"
    make_answered_run(folder / name.format("0.0003"), path, questions, wrong=48, learning_rate=3e-4)
    make_answered_run(folder / name.format("0.001"), path, questions, wrong=60, learning_rate=1e-3)
    stopped = make_answered_run(folder / name.format("3e-05"), path, questions, wrong=60, learning_rate=3e-5)
    update_run(stopped.folder, status="interrupted")
    make_answered_run(folder / "few", path, questions[:50], wrong=5, max_eval_samples=50)


def test_the_table_on_a_terminal_of_80_columns(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    make_compared_runs(tmp_path / "outputs")
    command = [sys.executable, str(ROOT / "report_qa.py"), "--table", str(tmp_path / "outputs")]
    assert run_in_terminal(command, columns=80).text == SCREEN_80
    assert run_in_terminal(command, columns=120).text == SCREEN_120


SCREEN_80 = """\
Scores of different tables cannot be compared: the runs were evaluated on
different data.

evaluated on 200 questions of dev.json
all rows: base base; train_file train.json; trainable 120; % of base 12.00
setup              F1           F1 to best  learning_  status       folder
                                            rate
Stack[qa]  77.0 ± 0.7                 best  0.0001     finished     qa_1 +1
Stack[qa]        76.0  ≈ −1.0 [−2.2, +0.0]  0.0003     finished     lr0.0003
Stack[qa]        70.0   −7.0 [−10.8, −3.8]  0.001      finished     lr0.001
Stack[qa]        70.0                       3e-05      interrupted  lr3e-05
to best: difference to the best row [95 % interval: bootstrap over 200 contexts,
each with its questions, 200 in all]; ≈: includes 0, not distinguishable from
the best row

evaluated on 50 questions of dev.json (--max_eval_samples 50)
seed 42; learning_rate 0.0001; base base; train_file train.json; trainable 120;
% of base 12.00
setup        F1    EM   best   train  folder
                       epoch    time
Stack[qa]  90.0  90.0      2    1:00  few
note: no space for EM, EM to best, seed, best epoch, others; --markdown - and wi
der terminals show all"""
SCREEN_120 = """\
Scores of different tables cannot be compared: the runs were evaluated on different data.

evaluated on 200 questions of dev.json
all rows: base base; train_file train.json; trainable 120; % of base 12.00
setup              F1           F1 to best          EM           EM to best  seed  learning_  status       folder
                                                                                   rate
Stack[qa]  77.0 ± 0.7                 best  77.0 ± 0.7                 best   1 2  0.0001     finished     qa_1 +1
Stack[qa]        76.0  ≈ −1.0 [−2.2, +0.0]        76.0  ≈ −1.0 [−2.2, +0.0]    42  0.0003     finished     lr0.0003
Stack[qa]        70.0   −7.0 [−10.8, −3.8]        70.0   −7.0 [−10.8, −3.8]    42  0.001      finished     lr0.001
Stack[qa]        70.0                             70.0                         42  3e-05      interrupted  lr3e-05
to best: difference to the best row [95 % interval: bootstrap over 200 contexts, each with its questions, 200 in all];
≈: includes 0, not distinguishable from the best row

evaluated on 50 questions of dev.json (--max_eval_samples 50)
seed 42; learning_rate 0.0001; base base; train_file train.json; trainable 120; % of base 12.00
setup        F1    EM   best   train  folder
                       epoch    time
Stack[qa]  90.0  90.0      2    1:00  few
note: no space for best epoch, train time; --markdown - and wider terminals show all"""


def test_a_format_is_printed_instead_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", 50.0)
    assert report_qa.main(["--table", str(tmp_path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["f1_mean"] == 50.0


def test_all_table_files_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    argv = ["--table", str(tmp_path), "--csv", "-", "--json", "-", "--markdown", str(tmp_path / "none" / "t.md")]
    assert problems_of(report_qa.main, argv) == [
        "only one of --csv, --markdown, --json can be printed (-); give files for the others",
        f"--markdown {tmp_path}/none/t.md: there is no folder {tmp_path}/none; make it first",
    ]
    assert problems_of(report_qa.main, ["--table", str(tmp_path), "--csv", str(tmp_path)]) == [
        f"--csv {tmp_path}: is a folder; give a file"
    ]


def test_one_file_for_two_tables_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path)
    file, same = tmp_path / "t.out", tmp_path / "link" / "t.out"
    argv = ["--table", str(tmp_path), "--csv", str(file), "--json", str(same)]
    assert problems_of(report_qa.main, argv) == [f"--json {same}: is the file of --csv; give another file"]
    assert not file.exists()


def test_table_needs_neither_matplotlib_nor_jinja_nor_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    blocked = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'jinja2', 'torch', 'transformers']))"
    code = f"{blocked}; import report_qa; sys.exit(report_qa.main(['--table', sys.argv[1]]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Stack[qa]" in done.stdout


def test_report_replaces_its_own_files_only_with_overwrite(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a b")
    command = ("report_qa.py", tmp_path / "runs", "--output_dir", tmp_path / "um relatório")
    page = tmp_path / "um relatório" / "report.html"
    done = run_script(*command)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"report: {page}"
    (page.parent / "curves_9.png").write_bytes(b"old")
    (page.parent / "curves_mine.png").write_bytes(b"mine")
    again = run_script(*command)
    assert again.returncode == 2
    assert again.stderr == (
        f"error: --output_dir {page.parent}: holds report.html; add --overwrite or give another folder\n"
    )
    replaced = run_script(*command, "--overwrite", "--json", "-")
    assert json.loads(replaced.stdout)[0]["n"] == 1
    assert f"report: {page}" in replaced.stderr
    assert {path.name for path in set(page.parent.iterdir()) - set(existing_files(page.parent))} == {"curves_mine.png"}
    assert not (page.parent / "curves_9.png").exists()


def test_output_dir_contradicts_table(tmp_path: Path) -> None:
    assert problems_of(report_qa.main, ["--table", str(tmp_path), "--output_dir", "x"]) == [
        "--table writes no report, so --output_dir would do nothing; leave one of them out"
    ]


@pytest.mark.parametrize("folder", ["file", "file/r"])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    assert problems_of(report_qa.main, [str(tmp_path), "--output_dir", f"{tmp_path}/{folder}"]) == [
        f"--output_dir {tmp_path}/{folder}: {tmp_path}/file is a file; give another folder"
    ]


def test_a_missing_package_is_refused_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a")
    monkeypatch.setattr(report_qa, "find_spec", lambda name: None if name == "matplotlib" else name)
    assert problems_of(report_qa.main, [str(tmp_path), "--output_dir", str(tmp_path / "r")]) == [
        'matplotlib: not installed; pip install "adapter-qa[report]", or add --table'
    ]
    assert report_qa.main(["--table", str(tmp_path)]) == 0
    with pytest.raises(SystemExit) as stopped:
        report_qa.main(["--help"])
    assert stopped.value.code == 0


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0)
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    assert report_qa.main(["--table", str(tmp_path / "a"), "--csv", str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").startswith("task,setup,")


def test_test_scores_that_there_are_not(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0)
    assert problems_of(report_qa.main, ["--table", str(tmp_path), "--split", "predict"]) == [
        "--split predict: no run has scores on --test_file; give runs with --do_predict and that file"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_behind_the_output_is_one_line(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0)
    command = [sys.executable, str(ROOT / "report_qa.py"), "--table", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device; make space there\n")
