"""The scripts as a chain: what each prints and writes, and that the next one can use it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.questions import make_questions, write_squad
from support.scripts import ROOT, override, run_main, run_script

import ask_qa
import convert_2021_adapters
import prepare_squad_pt
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
import sweep_qa
from predictor_qa import Overrides, QuestionAnswerer

CONLL = (
    "O O\nTribunal B-ORGANIZACAO\nde I-ORGANIZACAO\nBelém I-ORGANIZACAO\ndecidiu O\n. O\n\n"
    "Ana B-PESSOA\nnasceu O\nem O\nRecife B-LOCAL\n. O\n\n"
)
SCRIPTS = [run_qa_adapter, run_mlm_adapter, run_ner_adapter, prepare_squad_pt, ask_qa, convert_2021_adapters, sweep_qa]
SMALL = ["--max_seq_length", "64", "--num_train_epochs", "2", "--learning_rate", "1e-2", "--report_to", "tensorboard"]


class Chain:
    """A folder in which scripts run one after the other.

    Attributes:
        folder: the scripts' working directory.
        base: the base model.
        train: questions for training.
        dev: questions for evaluation.
        conll: sentences for the NER adapter.
        questions: the options for base model, files and stride.
    """

    def __init__(self, folder: Path, base: Path, files: tuple[Path, Path]):
        self.folder = folder
        self.base = base
        self.train, self.dev = files
        self.conll = folder / "ner.conll"
        self.conll.write_text(CONLL * 10, encoding="utf-8")
        self.questions: list[Any] = [
            "--model_name_or_path", base, "--train_file", self.train, "--validation_file", self.dev,
            "--doc_stride", "16",
        ]  # fmt: skip

    def run(self, main: Callable[[list[str]], int], *argv: object) -> str:
        """Run a script in this process, require success and return its standard output."""
        process = run_main(main, *argv, cwd=self.folder)
        assert process.returncode == 0, process.stderr[-3000:]
        return process.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, squad_files: tuple[Path, Path]) -> Chain:
    """A language adapter, a QA adapter, a NER adapter and their fusion in the folders mlm, qa, ner and fusion."""
    chain = Chain(tmp_path_factory.mktemp("chain"), tiny_bert, squad_files)
    model = ["--model_name_or_path", tiny_bert, "--do_train", "--do_eval"]
    chain.run(
        run_mlm_adapter.main, *model, "--train_file", chain.train, "--block_size", "32", "--num_train_epochs", "1",
        "--madx2", "True", "--language", "pt", "--output_dir", "mlm",
    )  # fmt: skip
    chain.run(
        run_qa_adapter.main, *chain.questions, "--do_train", "--do_eval", *SMALL, "--madx2", "True",
        "--load_lang_adapter", "mlm", "--language", "pt", "--output_dir", "qa",
    )  # fmt: skip
    chain.run(
        run_ner_adapter.main, *model, *SMALL, "--train_file", chain.conll, "--validation_file", chain.conll,
        "--test_file", chain.conll, "--do_predict", "--madx2", "True", "--weighted_loss", "--next_sentence",
        "--output_dir", "ner",
    )  # fmt: skip
    chain.run(
        run_qa_adapter.main, *chain.questions, "--do_train", "--do_eval", "--do_predict", "--test_file", chain.dev,
        *SMALL, "--load_lang_adapter", "mlm", "--fuse_adapters", "qa=qa", "ner=ner/adapters-ner",
        "--output_dir", "fusion",
    )  # fmt: skip
    return chain


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_files_of_a_fusion_run(chain: Chain) -> None:
    names = {path.name for path in (chain.folder / "fusion").iterdir()}
    assert names == {
        "adapters-fusion", "all_results.json", "eval_curves.json", "eval_nbest_predictions.json",
        "eval_predictions.json", "eval_results.json", "fusion_attention.json", "options.yaml",
        "predict_curves.json", "predict_nbest_predictions.json", "predict_predictions.json",
        "predict_results.json", "run.json", "run.lock", "runs", "train_results.json", "trainer_state.json",
    }  # fmt: skip
    assert list((chain.folder / "fusion" / "runs").rglob("events.out.tfevents.*"))


def test_run_json_describes_the_run(chain: Chain) -> None:
    run = read(chain.folder / "fusion" / "run.json")
    assert run["status"] == "finished"
    assert run["setup"] == "Stack[mlm, Fuse[qa, ner]]"
    assert run["options"]["learning_rate"] == 1e-2
    assert run["options"]["fuse_adapters"] == ["qa=qa", "ner=ner/adapters-ner"]
    assert run["versions"]["adapters"] == "1.3.0"
    assert run["data"]["train"]["questions"] == 24
    assert run["data"]["eval"]["questions"] == 8
    assert [entry["epoch"] for entry in run["history"]] == [1.0, 2.0]
    assert run["best"]["metric"] == max(entry["eval_f1"] for entry in run["history"])
    assert run["metrics"]["eval"]["eval_f1"] == run["best"]["metric"]
    assert run["metrics"]["eval"] == read(chain.folder / "fusion" / "eval_results.json")
    parts = run["parameters"]["parts"]
    assert run["parameters"]["added"] == sum(parts[name] for name in ("mlm", "qa", "ner", "fusion"))
    assert run["parameters"]["trainable"] == parts["fusion"] + parts["head"]
    assert {"loss", "learning_rate"} <= set(run["losses"][0])


def test_saved_setup_has_all_that_answering_needs(chain: Chain) -> None:
    trainer = read(chain.folder / "fusion" / "adapters-fusion" / "adapter_setup.json")["trainer"]
    assert trainer["base_model"]["name_or_path"] == str(chain.base)
    assert trainer["windows"] == {
        "max_seq_length": 64, "doc_stride": 16, "n_best_size": 20, "max_answer_length": 30, "version_2": False,
        "null_score_diff_threshold": 0.0,
    }  # fmt: skip
    assert (trainer["setup"], trainer["task"]) == ("Stack[mlm, Fuse[qa, ner]]", "qa")


def test_mlm_and_ner_runs_report_their_metrics(chain: Chain) -> None:
    mlm, ner = (read(chain.folder / name / "run.json")["metrics"]["eval"] for name in ("mlm", "ner"))
    assert mlm["eval_perplexity"] == pytest.approx(2.718281828459045 ** mlm["eval_loss"])
    assert {"eval_f1", "eval_precision", "eval_recall", "eval_PESSOA_f1", "eval_LOCAL_recall"} <= set(ner)
    lines = (chain.folder / "ner" / "predict_predictions.conll").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines if line] == [line.split()[0] for line in CONLL.splitlines() if line] * 10


@pytest.mark.parametrize("run", ["fusion", "fusion/adapters-fusion", "qa"])
def test_saved_run_gives_the_answers_of_its_evaluation(chain: Chain, run: str, tmp_path: Path) -> None:
    questions = make_questions(8, 2)  # those of the evaluation file
    lines = [
        json.dumps({"id": question.id, "question": question.question, "context": question.context, "note": 1})
        for question in questions
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    chain.run(ask_qa.main, run, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["id"] for answer in answers] == [question.id for question in questions]
    evaluation = read(chain.folder / run.split("/")[0] / "eval_nbest_predictions.json")
    for answer in answers:
        best = evaluation[answer["id"]][0]
        assert (answer["answer"], answer["start"], answer["end"]) == (best["text"], best["start"], best["end"])
        assert answer["score"] == pytest.approx(best["probability"], abs=1e-5)
        assert answer["context"][answer["start"] : answer["end"]] == answer["answer"]
        assert answer["note"] == 1


def test_another_process_gives_the_same_answer(chain: Chain) -> None:
    argv = ("fusion", "--question", "Onde nasceu Ana?", "--context", "Ana nasceu em Belém. " * 40)
    process = run_script("ask_qa.py", *argv, "--json", cwd=chain.folder)
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout)
    assert set(answer) == {"id", "question", "context", "answer", "score", "start", "end"}
    assert answer["answer"] in answer["context"]
    assert chain.run(ask_qa.main, *argv).startswith(f"{answer['answer']}   (probability 0.")


def test_loaded_fusion_has_the_same_metrics_and_trains_further(chain: Chain) -> None:
    argv = ["--max_seq_length", "64", "--do_eval", "--load_adapter", "fusion", "--output_dir", "eval_again"]
    chain.run(run_qa_adapter.main, *chain.questions, *argv)
    before, again = (read(chain.folder / name / "eval_results.json") for name in ("fusion", "eval_again"))
    for metric in ("eval_f1", "eval_exact", "eval_loss"):
        assert again[metric] == pytest.approx(before[metric], abs=1e-6)
    chain.run(run_qa_adapter.main, *chain.questions, *SMALL, "--do_train", "--load_adapter", "fusion/adapters-fusion",
              "--output_dir", "further")  # fmt: skip
    assert read(chain.folder / "further" / "run.json")["setup"] == "Stack[mlm, Fuse[qa, ner]]"


@pytest.fixture(scope="module")
def spanish(chain: Chain) -> str:
    """Another language adapter, in the folder mlm_es of the chain."""
    chain.run(
        run_mlm_adapter.main, "--model_name_or_path", chain.base, "--do_train", "--train_file", chain.train,
        "--block_size", "32", "--num_train_epochs", "1", "--madx2", "True", "--language", "es", "--learning_rate",
        "1e-2", "--output_dir", "mlm_es",
    )  # fmt: skip
    return "mlm_es"


def test_a_language_swap_is_said_recorded_and_resumes(chain: Chain, spanish: str) -> None:
    argv = [*chain.questions, "--max_seq_length", "64", "--max_steps", "2", "--save_strategy", "steps", "--save_steps",
            "1", "--keep_checkpoint", "--report_to", "none", "--do_train", "--load_adapter", "qa",
            "--load_lang_adapter", spanish, "--output_dir", "swapped"]  # fmt: skip
    note = "note: language swap: mlm_es/adapters-mlm/mlm (es) replaces qa/adapters-qa/mlm (pt) under qa"
    path = chain.folder / "swapped" / "run.json"
    swap = {
        "adapter": str(chain.folder / "mlm_es"), "replaced": str(chain.folder / "qa"), "language": "es",
        "replaced_language": "pt",
    }  # fmt: skip
    saved = chain.folder / "swapped" / "adapters-qa"
    weights = saved / "qa" / "adapter.safetensors"
    for attempt in range(2):
        process = run_main(run_qa_adapter.main, *argv, cwd=chain.folder)
        assert process.returncode == 0, process.stderr[-3000:]
        assert process.stderr.count(note) == 1
        document = read(path)
        assert document["language_swap"] == swap
        if attempt == 0:
            first = weights.read_bytes()
            path.write_text(json.dumps(document | {"status": "interrupted"}), encoding="utf-8")
        else:
            assert "checkpoint-2" in process.stdout
    assert weights.read_bytes() == first
    assert read(saved / "adapter_setup.json")["trainer"]["language_swaps"] == [swap]
    language = chain.folder / "mlm_es" / "adapters-mlm" / "mlm" / "adapter.safetensors"
    old, new = (load_file(file) for file in (language, saved / "mlm" / "adapter.safetensors"))
    assert all(torch.equal(old[name], new[name]) for name in {*old, *new})
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "- language swap: the language adapter of mlm_es (es) replaced that of qa (pt), on which" in card
    other = run_main(run_qa_adapter.main, *override(argv, "--load_lang_adapter", "none"), cwd=chain.folder)
    assert (other.returncode, "load_lang_adapter was mlm_es, now none" in other.stderr) == (2, True)


def test_a_swapped_fusion_answers_as_it_is_evaluated(chain: Chain, spanish: str) -> None:
    argv = [*chain.questions, "--do_eval", "--load_adapter", "fusion", "--load_lang_adapter", spanish]
    chain.run(run_qa_adapter.main, *argv, "--output_dir", "swapped_eval")
    kept, swapped = (read(chain.folder / name / "eval_results.json") for name in ("fusion", "swapped_eval"))
    assert kept["eval_loss"] != pytest.approx(swapped["eval_loss"], abs=1e-5)
    overrides = Overrides(language_adapter=str(chain.folder / spanish))
    answers = QuestionAnswerer(chain.folder / "fusion", overrides=overrides).answer(make_questions(8, 2))
    chosen = {key: candidate.text for key, candidate in answers.chosen.items()}
    assert chosen == read(chain.folder / "swapped_eval" / "eval_predictions.json")
    question = ["--question", "Onde nasceu Ana?", "--context", "Ana nasceu em Belém."]
    asked = run_main(ask_qa.main, "fusion", "--load_lang_adapter", spanish, *question, cwd=chain.folder)
    note = "note: language swap: mlm_es/adapters-mlm/mlm (es) replaces fusion/adapters-fusion/mlm (pt) under Fuse[qa, n"
    assert (asked.returncode, asked.stderr.count(note)) == (0, 1)


def test_a_ner_adapter_is_evaluated_on_another_language_adapter(chain: Chain, spanish: str) -> None:
    argv = ["--model_name_or_path", chain.base, "--validation_file", chain.conll, "--max_seq_length", "64",
            "--report_to", "none", "--do_eval"]  # fmt: skip
    chain.run(run_ner_adapter.main, *argv, "--do_train", "--max_steps", "1", "--train_file", chain.conll,
              "--load_lang_adapter", "mlm", "--output_dir", "ner_on_mlm")  # fmt: skip
    losses = []
    for name in ("mlm", spanish):
        more = ["--load_adapter", "ner_on_mlm", "--load_lang_adapter", name, "--output_dir", f"ner_on_{name}_eval"]
        chain.run(run_ner_adapter.main, *argv, *more)
        losses.append(read(chain.folder / more[-1] / "eval_results.json")["eval_loss"])
    trained = read(chain.folder / "ner_on_mlm" / "eval_results.json")["eval_loss"]
    assert losses[0] == trained != losses[1]
    assert "language_swap" not in read(chain.folder / "ner_on_mlm_eval" / "run.json")


def test_full_fine_tuning_saves_a_model_that_answers(chain: Chain) -> None:
    chain.run(run_qa_adapter.main, *chain.questions, *SMALL, "--do_train", "--do_eval", "--train_adapter", "False",
              "--output_dir", "full")  # fmt: skip
    assert (chain.folder / "full" / "model.safetensors").is_file()
    run = read(chain.folder / "full" / "run.json")
    assert run["setup"] == "full fine-tuning"
    assert run["parameters"]["trainable"] == run["parameters"]["base"]
    question = make_questions(8, 2)[0]
    argv = ("full", "--question", question.question, "--context", question.context, "--json")
    answer = json.loads(chain.run(ask_qa.main, *argv))
    assert answer["answer"] == read(chain.folder / "full" / "eval_predictions.json")["q0"]


def test_random_base_model_is_saved_with_the_adapters_and_answers(chain: Chain, tmp_path: Path) -> None:
    chain.run(run_qa_adapter.main, *chain.questions, *SMALL, "--do_train", "--do_eval", "--random_init", "True",
              "--load_lang_adapter", "new", "--output_dir", tmp_path / "random")  # fmt: skip
    moved = tmp_path / "moved"
    (tmp_path / "random").rename(moved)
    question = make_questions(8, 2)[3]
    argv = (moved, "--question", question.question, "--context", question.context, "--json")
    assert json.loads(chain.run(ask_qa.main, *argv))["answer"] == read(moved / "eval_predictions.json")["q3"]


def test_v2_run_writes_null_odds_and_best_thresholds(chain: Chain, tmp_path: Path) -> None:
    questions = make_questions(12, 5)
    unanswerable = [
        type(question)(f"n{question.id}", question.question, question.context, (), ()) for question in questions[:6]
    ]
    path = write_squad(tmp_path / "v2.json", [*questions, *unanswerable])
    argv = ["--model_name_or_path", chain.base, "--validation_file", path, "--do_eval", "--max_seq_length", "64",
            "--doc_stride", "16", "--train_adapter", "False"]  # fmt: skip
    chain.run(run_qa_adapter.main, *argv, "--version_2_with_negative", "--output_dir", tmp_path / "v2")
    results = read(tmp_path / "v2" / "eval_results.json")
    assert {"eval_HasAns_f1", "eval_NoAns_f1", "eval_best_f1", "eval_best_f1_thresh"} <= set(results)
    assert len(read(tmp_path / "v2" / "eval_null_odds.json")) == 18
    without_v2 = run_main(run_qa_adapter.main, *argv, "--output_dir", tmp_path / "v1")
    assert without_v2.returncode == 2
    assert "6 questions have no answer; SQuAD v2 data needs --version_2_with_negative True" in without_v2.stderr


def test_dry_run_prints_the_setup_and_writes_nothing(chain: Chain, tmp_path: Path) -> None:
    process = run_script(
        "run_qa_adapter.py", *chain.questions, "--do_train", "--do_eval", "--max_train_samples", "10",
        "--max_eval_samples", "1000", "--num_train_epochs", "3", "--max_seq_length", "64", "--dry_run",
        "--per_device_train_batch_size", "4", "--random_init", "--fuse_adapters", "qa=new", "ner=new", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    document = json.loads(process.stdout.splitlines()[-1])
    assert document["active_setup"] == "Fuse[qa, ner]"
    assert set(document["parameters"]) == {"base", "added", "trainable", "percent_added", "parts"}
    assert document["train"] == {"questions": 10, "windows": 10, "steps": 9}
    assert document["eval"] == {"questions": 8, "windows": 8, "steps": 1}
    assert not list(tmp_path.iterdir())


def test_command_line_overrides_the_options_file(chain: Chain, tmp_path: Path) -> None:
    options = tmp_path / "fusion.yaml"
    text = "random_init: true\nfuse_adapters: [a=new, b=new]\nmax_seq_length: 64\nmadx2: true\n"
    options.write_text(f"model_name_or_path: {chain.base}\n{text}")
    from_file, overridden = (
        json.loads(chain.run(run_qa_adapter.main, options, "--dry_run", *argv).splitlines()[-1])
        for argv in ([], ["--madx2", "False"])
    )
    # three layers of four
    assert from_file["parameters"]["parts"]["fusion"] * 4 == overridden["parameters"]["parts"]["fusion"] * 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_help_has_examples_and_no_internal_spellings(script: ModuleType) -> None:
    process = run_main(script.main, "--help")
    assert process.returncode == 0
    assert "examples:" in process.stdout
    assert f"{script.__name__}.py" in process.stdout
    assert "(default: None)" not in process.stdout
    assert "--no_" not in process.stdout


def test_ask_reports_every_invalid_line_of_a_file(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\nnot json\n', encoding="utf-8")
    process = run_main(ask_qa.main, "fusion", "--input", tmp_path / "bad.jsonl", cwd=chain.folder)
    assert process.returncode == 2
    assert "line 1 (id 1): no 'question'; no 'context'" in process.stderr
    assert "line 2: not JSON" in process.stderr


def test_ask_rejects_a_ner_run(chain: Chain) -> None:
    process = run_main(ask_qa.main, "ner", "--question", "Quem?", "--context", "x", cwd=chain.folder)
    assert process.returncode == 2
    assert "was not trained to answer questions; it holds a head of BertForTokenClassification" in process.stderr


def test_fusion_script_names_the_settings_that_it_needs() -> None:
    environment = {"PATH": os.environ["PATH"]}
    command = ["bash", str(ROOT / "train_fusion_pt.sh")]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode != 0
    assert "SQUAD" in process.stderr


@pytest.fixture
def fusion_script_settings(tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path) -> dict[str, str]:
    """Settings of train_fusion_pt.sh for a very short training in tmp_path / "out"."""
    with zipfile.ZipFile(tmp_path / "squad.zip", "w") as archive:
        archive.write(squad_files[0], "squad-train-v1.1.json")
        archive.write(squad_files[1], "squad-dev-v1.1.json")
    (tmp_path / "ner.conll").write_text(CONLL, encoding="utf-8")
    settings = {
        "MODEL": tiny_bert, "SQUAD": tmp_path / "squad.zip", "NER_TRAIN": tmp_path / "ner.conll",
        "NER_DEV": tmp_path / "ner.conll", "OUT": tmp_path / "out", "FP16": "False", "PYTHON": sys.executable,
        "MLM_EPOCHS": 1, "QA_EPOCHS": 1, "NER_EPOCHS": 1, "FUSION_EPOCHS": 1, "LENGTH": 64, "STRIDE": 16,
        "QA_REDUCTION": 4, "EXTRA": "--max_train_samples 8 --max_eval_samples 2 --report_to none",
    }  # fmt: skip
    return {name: str(value) for name, value in settings.items()}


def run_fusion_script(settings: dict[str, str]) -> str:
    """Run train_fusion_pt.sh, require success and return its standard output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    command = ["bash", str(ROOT / "train_fusion_pt.sh")]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def assert_fusion_script_trained(folder: Path) -> None:
    run = read(folder / "fusion" / "run.json")
    assert run["setup"] == "Stack[mlm, Fuse[qa_squad11pt, ner_lenerbr]]"
    assert run["options"]["weight_decay"] == 0.01
    assert run["options"]["gradient_accumulation_steps"] == 2


def test_commands_of_the_fusion_script_train_all_steps_and_skip_finished_ones(
    fusion_script_settings: dict[str, str], tmp_path: Path
) -> None:
    """The shell script runs with a recorder in place of Python; the recorded commands run in this process."""
    recorder, log = tmp_path / "recorder", tmp_path / "commands"
    recorder.write_text(f"#!/bin/sh\n{{ printf '%s\\0' \"$@\"; echo; }} >> {shlex.quote(str(log))}\n")
    recorder.chmod(0o700)
    settings = fusion_script_settings | {"PYTHON": str(recorder)}

    def run_commands() -> list[tuple[str, str]]:
        """Return the scripts that train_fusion_pt.sh runs, with their standard output."""
        log.write_bytes(b"")
        run_fusion_script(settings)
        outputs = []
        for line in log.read_text(encoding="utf-8").splitlines():
            script, *argv = line.removesuffix("\0").split("\0")
            main = {f"{module.__name__}.py": module.main for module in SCRIPTS}[script]
            process = run_main(main, *argv, cwd=ROOT)
            assert process.returncode == 0, process.stderr[-3000:]
            outputs.append((script, process.stdout))
        return outputs

    training_scripts = ["run_mlm_adapter.py", "run_qa_adapter.py", "run_ner_adapter.py", "run_qa_adapter.py"]
    assert [script for script, _ in run_commands()] == ["prepare_squad_pt.py", *training_scripts]
    assert_fusion_script_trained(tmp_path / "out")
    again = run_commands()
    assert [script for script, _ in again] == training_scripts
    assert all("this run is finished" in stdout for _, stdout in again)


@pytest.mark.slow
def test_fusion_script_trains_all_steps_and_skips_finished_ones(
    fusion_script_settings: dict[str, str], tmp_path: Path
) -> None:
    run_fusion_script(fusion_script_settings)
    assert_fusion_script_trained(tmp_path / "out")
    assert run_fusion_script(fusion_script_settings).count("this run is finished") == 4


@pytest.mark.parametrize("script", sorted(path.stem for path in ROOT.glob("*_*.py") if "run_cli(" in path.read_text()))
@pytest.mark.parametrize("argv", [["--help"], ["--model_name_or_path", "/nowhere", "--do_train", "--seeed", "1"]])
def test_help_and_option_errors_import_nothing_heavy(script: str, argv: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {argv!r}\n"
        f"import {script}\nfrom adapter_qa.core.cli import run_cli\n"
        f"try:\n    run_cli({script}.main)\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'adapters', 'datasets', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
