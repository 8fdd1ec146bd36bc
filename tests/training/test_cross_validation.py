"""Cross-validation (adapter_qa/training/cross_validation.py): a fold is a run by itself, all are scored as one."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from support.questions import PLACES, make_questions, write_squad
from support.scripts import ROOT, override, run_main
from transformers import TrainerCallback
from transformers.data.metrics.squad_metrics import squad_evaluate

import report_qa
import run_qa_adapter
from adapter_qa import QuestionAnswerer, UserError
from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.data.bootstrap import RESAMPLES
from adapter_qa.data.questions import Question
from adapter_qa.reporting.error_analysis import evaluated_questions, question_source, read_answers
from adapter_qa.reporting.runs import read_run

FOLDS = 2
SPLITS = ("train", "eval", "predict")


def make_data() -> list[Question]:
    """Return 36 questions of 9 articles, every sixth without an answer."""
    questions = [
        replace(question, title=f"article {number // 4}") for number, question in enumerate(make_questions(36, seed=3))
    ]
    return [
        question if number % 6 else replace(question, answer_texts=(), answer_starts=())
        for number, question in enumerate(questions)
    ]


QUESTIONS = make_data()


@pytest.fixture(scope="module", autouse=True)
def _few_objects_to_collect() -> Iterator[None]:
    """Leave the objects of earlier tests out of the garbage collections between folds, which would take seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squad(tmp_path_factory.mktemp("data") / "all.json", QUESTIONS)


@pytest.fixture(scope="module")
def command(tiny_bert: Path, data: Path) -> list[str]:
    """The command line of a cross-validation without its folder; a fold has 2 epochs of 3 steps."""
    return [
        "--model_name_or_path", str(tiny_bert), "--train_file", str(data), "--do_train", "--folds", str(FOLDS),
        "--version_2_with_negative", "True", "--max_seq_length", "64", "--doc_stride", "16", "--learning_rate", "3e-2",
        "--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--report_to", "none",
        "--disable_tqdm", "True",
    ]  # fmt: skip


def train(command: list[str], folder: Path, *changes: object) -> subprocess.CompletedProcess[str]:
    return run_main(run_qa_adapter.main, *override(command, "--output_dir", folder, *changes))


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cross-validation."""
    folder = tmp_path_factory.mktemp("whole") / "cv"
    run = train(command, folder)
    assert run.returncode == 0, run.stderr
    (folder.parent / "stdout").write_text(run.stdout, encoding="utf-8")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    saved = folder / "adapters-qa"
    return load_file(saved / "qa" / "adapter.safetensors") | load_file(saved / "model_head.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def parts_of(folder: Path) -> dict[str, list[Question]]:
    """Return the questions of the parts of a fold's run, by what it answered."""
    eval_ids, predict_ids = (read(folder / f"{split}_predictions.json").keys() for split in SPLITS[1:])
    return {
        "train": [question for question in QUESTIONS if question.id not in eval_ids | predict_ids],
        "eval": [question for question in QUESTIONS if question.id in eval_ids],
        "predict": [question for question in QUESTIONS if question.id in predict_ids],
    }


def test_no_article_is_in_two_parts_and_every_question_is_scored_once(whole: Path) -> None:
    scored: list[str] = []
    for number, recorded in enumerate(read(whole / "run.json")["folds"], 1):
        parts = parts_of(whole / f"fold_{number}")
        titles = [{question.title for question in parts[split]} for split in SPLITS]
        assert all(titles)
        assert len(set.union(*titles)) == sum(map(len, titles)) == 9
        counts = [(recorded[split]["questions"], recorded[split]["articles"]) for split in SPLITS]
        assert counts == [(len(parts[split]), len(of)) for split, of in zip(SPLITS, titles, strict=True)]
        scored += [question.id for question in parts["predict"]]
    assert sorted(scored) == sorted(question.id for question in QUESTIONS)


def test_a_fold_is_the_run_of_files_with_its_questions(whole: Path, command: list[str], tmp_path: Path) -> None:
    fold = whole / "fold_2"
    files = {split: write_squad(tmp_path / f"{split}.json", part) for split, part in parts_of(fold).items()}
    place = command.index("--folds")
    by_hand = command[:place] + command[place + 2 :]
    run = train(
        by_hand, tmp_path / "run", "--train_file", files["train"], "--validation_file", files["eval"], "--do_eval",
        "--test_file", files["predict"], "--do_predict",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert same_weights(fold, tmp_path / "run")
    for split in SPLITS[1:]:
        for name in ("predictions", "nbest_predictions", "null_odds"):
            file = f"{split}_{name}.json"
            assert (fold / file).read_bytes() == (tmp_path / "run" / file).read_bytes(), file
    one, other = (read(folder / "run.json")["history"] for folder in (fold, tmp_path / "run"))
    assert [entry["eval_f1"] for entry in one] == [entry["eval_f1"] for entry in other]


def test_the_answers_of_the_scored_fold_decide_nothing(whole: Path, command: list[str], tmp_path: Path) -> None:
    scored = {question.id for question in parts_of(whole / "fold_1")["predict"]}

    def changed(question: Question) -> Question:
        place = next(place for place in PLACES if place in question.context and (place,) != question.answer_texts)
        return replace(question, answer_texts=(place,), answer_starts=(question.context.index(place),))

    questions = [changed(question) if question.id in scored else question for question in QUESTIONS]
    run = train(
        command, tmp_path / "cv", "--train_file", write_squad(tmp_path / "changed.json", questions), "--fold", 1
    )
    assert run.returncode == 0, run.stderr
    fold = tmp_path / "cv" / "fold_1"
    assert same_weights(whole / "fold_1", fold)
    assert read(fold / "predict_predictions.json") == read(whole / "fold_1" / "predict_predictions.json")
    assert (
        read(fold / "predict_results.json")["predict_f1"]
        != read(whole / "fold_1" / "predict_results.json")["predict_f1"]
    )


def test_pooled_scores_are_those_of_the_official_script(whole: Path) -> None:
    answers, odds = read(whole / "eval_predictions.json"), read(whole / "eval_null_odds.json")
    candidates = read(whole / "eval_nbest_predictions.json")
    assert list(answers) == list(odds) == list(candidates) == [question.id for question in QUESTIONS]
    for pooled, name in ((answers, "predictions"), (odds, "null_odds"), (candidates, "nbest_predictions")):
        folds = [read(whole / f"fold_{number}" / f"predict_{name}.json") for number in range(1, FOLDS + 1)]
        assert pooled == {key: value for fold in folds for key, value in fold.items()}
    metrics = read(whole / "eval_results.json")
    assert metrics == read(whole / "run.json")["metrics"]["eval"]
    assert read(whole / "all_results.json").items() >= metrics.items()

    def official(texts: dict[str, str], odds: dict[str, float] | None = None) -> dict[str, float]:
        examples: Any = [
            type("Example", (), {"qas_id": q.id, "answers": [{"text": text} for text in q.answer_texts]})
            for q in QUESTIONS
        ]
        # The example of a question without an answer has none, and the script takes "" for its gold answer.
        return dict(squad_evaluate(examples, texts, odds))

    expected = official(answers, odds)
    for name in ("exact", "f1", "total", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"):
        assert metrics[f"eval_{name}"] == pytest.approx(expected[name], abs=1e-9), name
    spans = {
        key: next((entry["text"] for entry in entries if entry["text"]), "") for key, entries in candidates.items()
    }
    tuned = official(spans, odds)
    for name in ("best_exact", "best_f1", "best_f1_thresh"):
        assert metrics[f"eval_{name}"] == pytest.approx(tuned[name], abs=1e-9), name
    first_three = [
        max(official({**answers, q.id: entry["text"]})["exact"] for entry in candidates[q.id][:3])
        - official({**answers, q.id: "never"})["exact"]
        for q in QUESTIONS
    ]
    assert metrics["eval_top_3_exact"] == pytest.approx(sum(first_three), abs=1e-6)


def test_intervals_and_the_deviation_over_folds(whole: Path) -> None:
    metrics = read(whole / "eval_results.json")
    folds = [read(whole / f"fold_{number}" / "predict_results.json") for number in range(1, FOLDS + 1)]
    for name in ("exact", "f1"):
        scores = [fold[f"predict_{name}"] for fold in folds]
        assert metrics[f"eval_{name}_fold_mean"] == pytest.approx(statistics.fmean(scores))
        assert metrics[f"eval_{name}_fold_deviation"] == pytest.approx(statistics.stdev(scores))
    assert metrics["eval_loss"] == pytest.approx(
        np.average([fold["predict_loss"] for fold in folds], weights=[fold["predict_windows"] for fold in folds])
    )
    scored = read_answers(read_run(whole), QUESTIONS).scores[:, 1]  # every question has a context of its own
    interval = stats.bootstrap(
        (scored,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (metrics["eval_f1_low"], metrics["eval_f1_high"]) == pytest.approx((interval.low, interval.high), abs=1)


class Signal(TrainerCallback):
    """A callback that sends a signal to this process after an optimizer step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupted_one_resumes_in_its_fold(
    whole: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cv"
    alone = train(command, folder, "--fold", 2)
    assert alone.returncode == 0, alone.stderr
    recorded = (folder / "fold_2" / "run.json").read_bytes()
    make_trainer: Callable[..., Any] = run_qa_adapter.make_trainer

    def interrupted_trainer(run: Any, *rest: Any) -> Any:
        trainer = make_trainer(run, *rest)
        if run.config.data.fold == 1:
            trainer.add_callback(Signal())
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(run_qa_adapter, "make_trainer", interrupted_trainer)
        stopped = train(command, folder)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert [read(path / "run.json")["status"] for path in (folder, folder / "fold_1")] == ["interrupted"] * 2
    assert not (folder / "eval_predictions.json").exists()

    other = train(command, folder, "--fold_choosing_share", 0.2)
    assert other.returncode == 2
    assert "fold_choosing_share was 0.1, now 0.2" in other.stderr

    resumed = train(command, folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "from checkpoint-4" in resumed.stdout
    assert (folder / "fold_2" / "run.json").read_bytes() == recorded
    for number in range(1, FOLDS + 1):
        assert same_weights(folder / f"fold_{number}", whole / f"fold_{number}"), number
        assert not [*(folder / f"fold_{number}").glob("checkpoint-*")]
    for name in ("predictions", "nbest_predictions", "null_odds"):
        assert (folder / f"eval_{name}.json").read_bytes() == (whole / f"eval_{name}.json").read_bytes()
    again = train(command, folder)
    assert (again.returncode, again.stdout.count("this run is finished")) == (0, 1)


@pytest.mark.parametrize("changes", [(), ("--learning_rate", 1e-2)], ids=["same options", "other options"])
def test_overwriting_replaces_a_fold_that_ran_alone(
    whole: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[object, ...]
) -> None:
    folder = tmp_path / "cv"
    shutil.copytree(whole / "fold_1", folder / "fold_1")
    folds: list[bool] = []
    monkeypatch.setattr(
        run_qa_adapter,
        "train_once",
        lambda argv, config: folds.append(Path(config.training.output_dir, "fold_1").exists()),
    )
    run = train(command, folder, "--overwrite_output_dir", *changes)
    assert folds == [False, False], run.stderr


def test_overwriting_folds_removes_nothing_that_is_loaded(whole: Path, command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "cv"
    shutil.copytree(whole / "fold_1", folder / "fold_1")
    base = folder / "fold_1" / "base"
    shutil.copytree(command[1], base)
    run = train(command, folder, "--overwrite_output_dir", "--model_name_or_path", base)
    assert run.returncode == 2
    assert (
        f"error: --output_dir {folder}: --overwrite_output_dir would remove {base}, which this run loads; give another "
        "folder"
    ) in run.stderr.splitlines()
    assert base.exists()


def test_a_new_fold_computes_as_its_cross_validation_began(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"options": {"bf16": True, "fp16": False}}), encoding="utf-8")
    argv = override(command, "--output_dir", tmp_path, "--fold", 1)
    run, _ = run_qa_adapter.prepare(argv, parse_config(QARunConfig, argv, description="", examples=""))
    assert (run.args.output_dir, run.args.bf16) == (str(tmp_path / "fold_1"), True)
    assert run.args.head_learning_rate is None
    assert run.precision_reason == f"as the run in {tmp_path} began"


def test_a_fold_of_other_questions_is_refused_before_another_one_is_trained(
    whole: Path, command: list[str], data: Path, tmp_path: Path
) -> None:
    folder, changed = tmp_path / "cv", tmp_path / "all.json"
    shutil.copytree(whole / "fold_2", folder / "fold_2")
    changed.write_bytes(data.read_bytes() + b"\n")
    run = train(command, folder, "--train_file", changed)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: {folder / 'fold_2'}: was not finished on the present questions of fold 2; give the --train_file and "
        "the options of then, another --output_dir, or --overwrite_output_dir to start anew"
    ]
    assert [path.name for path in folder.iterdir()] == ["fold_2"]


def test_folds_of_other_options_are_refused_all_at_once_before_another_one_is_trained(
    whole: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cv"
    problems = {
        "finished": "holds a finished run with other options (learning_rate was 0.01, now 0.03); give another folder, "
        "or --overwrite_output_dir to replace it",
        "interrupted": "holds an unfinished run with other options (learning_rate was 0.02, now 0.03); it resumes with "
        "its own options only: give those, another folder, or --overwrite_output_dir",
    }
    for number, status in enumerate(problems, 1):
        begun = read(whole / f"fold_{number}" / "run.json")
        begun["options"]["learning_rate"] = number / 100
        (folder / f"fold_{number}").mkdir(parents=True)
        (folder / f"fold_{number}" / "run.json").write_text(json.dumps(begun | {"status": status}), encoding="utf-8")
    monkeypatch.setattr(run_qa_adapter, "train_once", pytest.fail)
    before = sorted(folder.rglob("*"))
    run = train(command, folder)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: --output_dir {folder}/fold_{number}: {problem}" for number, problem in enumerate(problems.values(), 1)
    ]
    assert sorted(folder.rglob("*")) == before


def test_a_fold_in_which_another_process_works_is_compared_in_its_turn(
    whole: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cv"
    shutil.copytree(whole / "fold_2", folder / "fold_2")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom adapter_qa.runs.lock import lock_run_dir\n"
        "lock_run_dir(Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(600)"
    )
    folds: list[int | None] = []
    monkeypatch.setattr(run_qa_adapter, "train_once", lambda argv, config: folds.append(config.data.fold))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "fold_2")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        train(command, folder, "--learning_rate", 1e-2)
        other.kill()
    assert folds == [1, 2]


def test_a_fold_that_is_not_finished_is_not_scored(
    whole: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cv"
    shutil.copytree(whole, folder)
    for path in (folder / "run.json", folder / "fold_2" / "run.json"):
        path.write_text(json.dumps(read(path) | {"status": "interrupted"}), encoding="utf-8")
    monkeypatch.setattr(run_qa_adapter, "train_once", lambda argv, config: None)
    run = train(command, folder)
    assert run.returncode == 1
    assert f"error: {folder / 'fold_2'}: was not finished on the present questions of fold 2" in run.stderr
    assert read(folder / "run.json")["status"] == "failed"


def test_a_finished_fold_notes_that_its_file_has_changed(
    whole: Path, command: list[str], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cv"
    shutil.copytree(whole / "fold_2", folder / "fold_2")
    content = data.read_bytes()
    try:
        data.write_bytes(content + b"\n")
        run = train(command, folder, "--fold", 2)
    finally:
        data.write_bytes(content)
    assert run.returncode == 0, run.stderr
    (note,) = [line for line in run.stderr.splitlines() if "changed since" in line]
    assert note == (
        f"note: {folder / 'fold_2'}: --train_file {data} changed since this run began; --overwrite_output_dir does it "
        "again"
    )


def test_a_report_shows_one_row(whole: Path, command: list[str], data: Path, tmp_path: Path) -> None:
    evaluated = tmp_path / "evaluated"
    run = run_main(
        run_qa_adapter.main, "--model_name_or_path", command[1], "--load_adapter", whole / "fold_1", "--do_eval",
        "--validation_file", data, "--output_dir", evaluated,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = json.loads(run_main(report_qa.main, "--table", whole, evaluated, "--json", "-").stdout)
    assert len(rows) == 2
    (row,) = [row for row in rows if row["runs"][0]["folder"] == str(whole)]
    metrics = read(whole / "eval_results.json")
    assert (row["n"], row["f1_mean"], row["not_compared"]) == (1, metrics["eval_f1"], None)
    assert row["compared_questions"] == len(QUESTIONS)
    table = run_main(report_qa.main, "--table", whole).stdout
    assert (
        f"cv: {FOLDS} folds, all answers together; F1 {metrics['eval_f1']:.1f} [{metrics['eval_f1_low']:.1f}," in table
    )


def test_the_questions_that_a_fold_was_evaluated_on(whole: Path) -> None:
    runs = fold, run, other = read_run(whole / "fold_2"), read_run(whole), read_run(whole / "fold_1")
    assert evaluated_questions(fold) == parts_of(whole / "fold_2")["eval"]
    assert evaluated_questions(run) == QUESTIONS
    assert evaluated_questions(other) == parts_of(whole / "fold_1")["eval"]
    assert len({question_source(each) for each in runs}) == len({each.evaluated for each in runs}) == 3


def test_a_cross_validation_is_not_asked_but_its_folds_are(whole: Path) -> None:
    with pytest.raises(UserError, match=r"ask one of its folds, such as .*fold_1"):
        QuestionAnswerer(whole)
    assert QuestionAnswerer(whole / "fold_1").ask("Onde nasceu Ana?", "Ana nasceu em Recife.")


def test_a_dry_run_has_the_folds(whole: Path, command: list[str], tmp_path: Path) -> None:
    run = train(command, tmp_path / "cv", "--dry_run")
    assert run.returncode == 0, run.stderr
    *lines, last = run.stdout.splitlines()
    document = json.loads(last)
    assert document["parameters"]["trainable"] > 0
    counts = [{split: fold[split]["questions"] for split in SPLITS} for fold in document["folds"]]
    assert counts == [
        {split: len(part) for split, part in parts_of(whole / f"fold_{number}").items()} for number in (1, 2)
    ]
    assert f"  data        {len(QUESTIONS)} questions of 9 articles; below, articles are in brackets" in lines
    assert not (tmp_path / "cv").exists()


REFUSALS: dict[str, tuple[list[str], list[str]]] = {
    "other files": (
        ["--validation_file", "DATA", "--max_eval_samples", "3", "--push_to_hub"],
        ["--validation_file: cannot be", "--max_eval_samples: cannot be", "--push_to_hub: cannot be"],
    ),
    "a prediction": (["--do_predict", "--test_file", "DATA"], ["--do_predict: cannot be", "--test_file: cannot be"]),
    "one fold": (["--folds", "1"], ["--folds 1: must be at least 2"]),
    "a fold too many": (["--fold", "3"], ["--fold 3: must be at most --folds 2"]),
    "no epoch is chosen": (["--eval_strategy", "no"], ["--eval_strategy no: no epoch is chosen"]),
    "nothing to choose on": (
        ["--fold_choosing_share", "0", "--eval_strategy", "epoch"],
        ["--fold_choosing_share 0: leaves no questions to evaluate on"],
    ),
    "a log of one run": (["--report_to", "wandb"], ["--report_to wandb: would log all folds as one run"]),
    "DeepSpeed": (["--deepspeed", str(ROOT / "ds_config_zero2.json")], ["--folds: DeepSpeed needs a process for each"]),
    "more folds than articles": (
        ["--folds", "10", "--fold_by", "article"],
        ["--folds 10: 9 groups cannot make 10 folds; the data have 9 articles; give fewer folds or --fold_by context"],
    ),
    "a model that knows the answers": (
        ["--load_adapter", "SEEN"],
        ["--load_adapter SEEN: was trained on DATA, whose questions --folds scores"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, whole: Path, command: list[str], data: Path, tmp_path: Path) -> None:
    words, problems = REFUSALS[name]
    paths = {"DATA": str(data), "SEEN": str(whole / "fold_1")}
    run = train(command, tmp_path / "cv", *(paths.get(word, word) for word in words))
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    for problem in problems:
        expected = problem.replace("DATA", paths["DATA"]).replace("SEEN", paths["SEEN"])
        assert any(line.startswith(f"error: {expected}") for line in errors), (expected, errors)


def test_several_processes_and_too_few_articles_are_refused_without_torch(command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, run_qa_adapter\n"
        "from adapter_qa.core.errors import UserError\n"
        "try:\n    run_qa_adapter.main(sys.argv[1:])\n"
        "except UserError as error:\n    print(error)\n"
        "assert 'torch' not in sys.modules"
    )
    for changes, environment, problem in (
        ([], {"WORLD_SIZE": "2"}, "--folds: 2 processes were started, one runs all folds; start it without torchrun"),
        (
            ["--fold_by", "article", "--title_column", "id_of_nothing"],
            {},
            f"--fold_by article: {len(QUESTIONS)} of {len(QUESTIONS)} questions have no title; give --title_column, or "
            "--fold_by context",
        ),
        (["--folds", "40"], {}, "--folds 40: 36 groups cannot make 40 folds"),
    ):
        argv = override(command, "--output_dir", tmp_path / "cv", *changes)
        run = subprocess.run(
            [sys.executable, "-c", code, *argv], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith(problem)
