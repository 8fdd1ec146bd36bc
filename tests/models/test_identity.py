"""Fingerprints, and where adapters meet another base model or tokenizer (adapter_qa/models/identity.py).

The bases are made from one tiny model: the same weights in other files, or weights with noise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.questions import make_questions, write_squad
from support.scripts import run_main
from transformers import BertForMaskedLM, BertForQuestionAnswering

import ask_qa
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import ModelOptions
from adapter_qa.models.base_model import has_local_weights, load_model
from adapter_qa.models.identity import base_files_fingerprint, weights_fingerprint
from predictor_qa import QuestionAnswerer

CONLL = "Ana B-PER\nnasceu O\nem O\nRecife B-LOC\n. O\n\n" * 4
State = dict[str, torch.Tensor]


def write_base(folder: Path, base: Path, change: Callable[[State], State] = dict, **config: Any) -> Path:
    """Copy a base model with changed weights and keys of config.json."""
    shutil.copytree(base, folder)
    state = change(load_file(base / "model.safetensors"))
    save_file({name: weight.clone().contiguous() for name, weight in state.items()}, folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config), encoding="utf-8")
    return folder


def with_noise(state: State) -> State:
    generator = torch.Generator().manual_seed(1)
    return {name: weight + 0.05 * torch.randn(weight.shape, generator=generator) for name, weight in state.items()}


# ---------------------------------------------------------------- fingerprints


def renamed(state: State, old: str, new: str) -> State:
    return {new + name.removeprefix(old): weight for name, weight in state.items() if name.startswith(old)}


def with_old_names(state: State) -> State:
    pairs = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    for new, old in pairs:
        state = {name.replace(new, old): weight for name, weight in state.items()}
    return state


SAME: dict[str, Callable[[State], State]] = {
    "without a head or prefix": lambda state: renamed(state, "bert.", ""),
    "of a parallel training": lambda state: renamed(state, "", "module."),
    "in another class": lambda state: renamed(state, "bert.", "model.encoder."),
    "with a pooler and a classifier": lambda state: (
        state | {"bert.pooler.dense.weight": torch.ones(32, 32), "classifier.weight": torch.ones(5, 32)}
    ),
    "with names of TensorFlow": with_old_names,
    "with buffers": lambda state: state | {"bert.embeddings.position_ids": torch.arange(128)[None]},
    "with adapters": lambda state: (
        state | {"bert.encoder.layer.0.output.adapters.qa.adapter_down.0.weight": torch.ones(2, 32)}
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_weights_under_other_names_have_one_fingerprint(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    expected = weights_fingerprint(load_model(ModelOptions(str(tiny_bert)), "qa"))
    options = ModelOptions(str(write_base(tmp_path / "base", tiny_bert, SAME[name])))
    assert base_files_fingerprint(options) == expected
    assert weights_fingerprint(load_model(options, "qa")) == expected


def test_the_format_of_the_files_has_no_influence(tiny_bert: Path, tmp_path: Path) -> None:
    expected = weights_fingerprint(load_model(ModelOptions(str(tiny_bert)), "qa"))
    model = BertForMaskedLM.from_pretrained(tiny_bert)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    model.save_pretrained(tmp_path / "bin", safe_serialization=False)
    model.save_pretrained(tmp_path / "sharded_bin", max_shard_size="20KB", safe_serialization=False)
    model.save_pretrained(tmp_path / "old_bin", safe_serialization=False)
    state = load_file(tiny_bert / "model.safetensors")
    torch.save(state, tmp_path / "old_bin" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    for name in ("sharded", "bin", "sharded_bin", "old_bin"):
        assert base_files_fingerprint(ModelOptions(str(tmp_path / name))) == expected
    assert base_files_fingerprint(ModelOptions(str(tiny_bert))) == expected


def test_any_weight_and_the_number_of_layers_change_the_fingerprint(tiny_bert: Path, tmp_path: Path) -> None:
    def nudged(state: State) -> State:
        state["bert.encoder.layer.1.output.LayerNorm.bias"][3] += 1e-3
        return state

    expected = base_files_fingerprint(ModelOptions(str(tiny_bert)))
    for name, change, config in (("nudged", nudged, {}), ("shorter", dict, {"num_hidden_layers": 3})):
        options = ModelOptions(str(write_base(tmp_path / name, tiny_bert, change, **config)))
        fingerprint = base_files_fingerprint(options)
        assert not {*fingerprint} & {*expected}
        assert weights_fingerprint(load_model(options, "qa")) == fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_copy_in_half_precision_has_the_rounded_fingerprint(
    dtype: torch.dtype, tiny_bert: Path, tmp_path: Path
) -> None:
    half = write_base(tmp_path / "half", tiny_bert, lambda state: {name: w.to(dtype) for name, w in state.items()})
    original, copy = (base_files_fingerprint(ModelOptions(str(base))) for base in (tiny_bert, half))
    assert copy.float32 != original.float32
    assert copy.float32 == (original.float16 if dtype == torch.float16 else original.bfloat16)


@pytest.mark.parametrize("safe", [True, False])
def test_a_hub_id_in_the_cache_has_the_fingerprint_of_its_files(safe: bool, tiny_bert: Path, tmp_path: Path) -> None:
    options = ModelOptions("org/bert", cache_dir=str(tmp_path))
    assert not has_local_weights(options)
    repository = tmp_path / "models--org--bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    BertForMaskedLM.from_pretrained(tiny_bert).save_pretrained(
        repository / "snapshots" / "0123", max_shard_size="20KB", safe_serialization=safe
    )
    assert has_local_weights(options)
    assert base_files_fingerprint(options) == base_files_fingerprint(ModelOptions(str(tiny_bert)))


# ---------------------------------------------------------------- runs


@dataclass(frozen=True)
class Runs:
    """Runs of one step with adapters on one base, and other bases.

    Attributes:
        folder: of the runs `mlm`, `ner` and `qa`, and of the bases.
        base: that they were trained on.
        other: with other weights of the same sizes.
    """

    folder: Path
    base: Path
    other: Path

    def run(self, task: str, base: Path, *argv: object) -> tuple[int, list[str]]:
        """Run a script and return its exit code, and the notes and errors about adapters and bases."""
        main, data = {
            "mlm": (run_mlm_adapter.main, ["--block_size", 32]),
            "ner": (run_ner_adapter.main, ["--max_seq_length", 64]),
            "qa": (run_qa_adapter.main, ["--max_seq_length", 64, "--doc_stride", 16]),
        }[task]
        file = self.folder / FILES[task]
        options = ["--model_name_or_path", base, "--train_file", file, "--validation_file", file, "--report_to", "none"]
        result = run_main(main, *options, *data, "--max_steps", 1, "--disable_tqdm", "True", *argv)
        return result.returncode, base_lines(result.stderr)

    def saved(self, name: str) -> Path:
        """Return the folder that a run saved."""
        return self.folder / name / f"adapters-{name}"


def base_lines(stderr: str) -> list[str]:
    """Return the notes and errors about bases."""
    lines = [line for line in stderr.splitlines() if line.startswith(("note: ", "error: "))]
    return [line for line in lines if ") was trained on " in line]


FILES = {"mlm": "texts.txt", "ner": "sentences.conll", "qa": "questions.json"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Runs:
    folder = tmp_path_factory.mktemp("identity")
    base = Path(shutil.copytree(tiny_bert, folder / "base"))
    runs = Runs(folder, base, write_base(folder / "other", tiny_bert, with_noise))
    questions = make_questions(4, 1)
    write_squad(folder / FILES["qa"], questions)
    (folder / FILES["ner"]).write_text(CONLL, encoding="utf-8")
    (folder / FILES["mlm"]).write_text("\n".join(question.context for question in questions * 8), encoding="utf-8")
    for name in FILES:
        assert runs.run(name, base, "--do_train", "--output_dir", folder / name) == (0, [])
    return runs


LOAD = {
    "train further": ("qa", ["--load_adapter", "{qa}"], ["qa"]),
    "stack": ("qa", ["--load_lang_adapter", "{mlm}"], ["mlm"]),
    "fuse": ("qa", ["--load_lang_adapter", "{mlm}", "--fuse_adapters", "qa={qa}", "ner={ner}"], ["mlm", "qa", "ner"]),
    "a single adapter's folder": ("qa", ["--load_adapter", "{qa}/adapters-qa/qa"], ["qa"]),
    "NER on a language adapter": ("ner", ["--load_lang_adapter", "{mlm}"], ["mlm"]),
    "NER further": ("ner", ["--load_adapter", "{ner}"], ["ner"]),
    "language adapter further": ("mlm", ["--load_adapter", "{mlm}"], ["mlm"]),
}


@pytest.mark.parametrize("name", LOAD)
def test_training_on_adapters_of_another_base_is_refused(name: str, runs: Runs) -> None:
    task, words, adapters = LOAD[name]
    argv = [word.format(**{run: runs.folder / run for run in FILES}) for word in words]
    assert runs.run(task, runs.other, "--do_train", "--dry_run", *argv) == (
        2,
        [
            f"error: {runs.saved(adapter)} (adapter {adapter}) was trained on {runs.base}; {runs.other} has other "
            f"weights; give --model_name_or_path {runs.base}, or train it anew on {runs.other}"
            for adapter in adapters
        ],
    )
    assert runs.run(task, runs.base, "--do_train", "--dry_run", *argv) == (0, [])


@pytest.mark.parametrize("task", FILES)
def test_evaluating_on_another_base_is_said(task: str, runs: Runs, tmp_path: Path) -> None:
    argv = ["--do_eval", "--load_adapter", runs.folder / task, "--max_eval_samples", 2]
    assert runs.run(task, runs.other, *argv, "--output_dir", tmp_path / "other") == (
        0,
        [
            f"note: {runs.saved(task)} (adapter {task}) was trained on {runs.base}; {runs.other} has other weights; "
            f"give --model_name_or_path {runs.base}; otherwise the results are not those of its run"
        ],
    )


def test_a_swapped_language_adapter_of_another_base_is_refused(runs: Runs, tmp_path: Path) -> None:
    """Also to evaluate and to ask, since no run had this composition."""
    stacked, foreign = tmp_path / "stacked", tmp_path / "foreign"
    train = ["--do_train", "--load_lang_adapter", runs.folder / "mlm", "--output_dir", stacked]
    assert runs.run("qa", runs.base, *train) == (0, [])
    assert runs.run("mlm", runs.other, "--do_train", "--output_dir", foreign) == (0, [])
    line = (
        f"error: {foreign / 'adapters-mlm'} (adapter mlm) was trained on {runs.other}; {runs.base} has other weights; "
        f"give --model_name_or_path {runs.other}, or train it anew on {runs.base}"
    )
    swap = ["--load_lang_adapter", foreign]
    evaluate = ["--do_eval", "--load_adapter", stacked, *swap, "--output_dir", tmp_path / "eval"]
    assert runs.run("qa", runs.base, *evaluate) == (2, [line])
    question = ["--question", "Onde nasceu Ana?", "--context", "Ana nasceu em Recife."]
    asked = run_main(ask_qa.main, stacked, *swap, *question)
    assert (asked.returncode, base_lines(asked.stderr)) == (2, [line])


def test_asking_on_another_base_is_said(runs: Runs) -> None:
    question = ["--question", "Onde nasceu Ana?", "--context", "Ana nasceu em Recife."]
    for base, lines in ((runs.base, 0), (runs.other, 1)):
        result = run_main(ask_qa.main, runs.folder / "qa", "--model_name_or_path", base, *question)
        assert (result.returncode, len(base_lines(result.stderr))) == (0, lines)


def test_the_same_base_elsewhere_or_with_another_head_is_silent(runs: Runs, tmp_path: Path) -> None:
    moved = write_base(tmp_path / "moved", runs.base)
    BertForQuestionAnswering.from_pretrained(runs.base).save_pretrained(moved)
    assert "qa_outputs.weight" in load_file(moved / "model.safetensors")
    assert runs.run("qa", moved, "--do_train", "--dry_run", "--load_adapter", runs.folder / "qa") == (0, [])


def test_a_copy_in_half_precision_is_said_and_can_be_trained_on(runs: Runs, tmp_path: Path) -> None:
    half = write_base(tmp_path / "half", runs.base, lambda state: {name: w.half() for name, w in state.items()})
    argv = ["--do_train", "--dry_run", "--load_adapter", runs.folder / "qa"]
    assert runs.run("qa", half, *argv) == (
        0,
        [
            f"note: {runs.saved('qa')} (adapter qa) was trained on the same weights as those of {half}, in another "
            "precision; the results can differ slightly"
        ],
    )


def test_a_record_of_an_earlier_version_cannot_tell_a_copy_in_half_precision(runs: Runs, tmp_path: Path) -> None:
    half = write_base(tmp_path / "half", runs.base, lambda state: {name: w.half() for name, w in state.items()})
    run = Path(shutil.copytree(runs.folder / "qa", tmp_path / "qa"))
    change_record(run / "adapters-qa", lambda record: record.pop("fingerprint_float16"))
    code, (line,) = runs.run("qa", half, "--do_train", "--dry_run", "--load_adapter", run)
    assert code == 2
    assert f"{half} has other weights, or the same in another precision; give --model_name_or_path" in line


def change_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a saved folder recorded of its base model."""
    path = folder / "adapter_setup.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document["trainer"]["base_model"])
    path.write_text(json.dumps(document), encoding="utf-8")


def test_what_recorded_no_hash_is_silent(runs: Runs, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs.folder / "qa", tmp_path / "qa"))
    change_record(run / "adapters-qa", lambda record: record.pop("fingerprint"))
    assert runs.run("qa", runs.other, "--do_train", "--dry_run", "--load_adapter", run) == (0, [])


def test_an_adapter_alone_in_a_folder_tells_its_base(runs: Runs, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(runs.saved("mlm") / "mlm", tmp_path / "mlm"))
    code, lines = runs.run("qa", runs.other, "--do_train", "--dry_run", "--load_lang_adapter", alone)
    assert code == 2
    assert [line.split(" was trained on ")[0] for line in lines] == [f"error: {alone} (adapter mlm)"]


def test_a_base_that_was_fine_tuned_is_another_base(runs: Runs, tmp_path: Path) -> None:
    argv = ["--do_train", "--train_adapter", "False", "--learning_rate", 0.1, "--output_dir", tmp_path / "full"]
    assert runs.run("qa", runs.base, *argv) == (0, [])
    code, lines = runs.run("qa", tmp_path / "full", "--do_train", "--dry_run", "--load_adapter", runs.folder / "qa")
    assert (code, len(lines)) == (2, 1)


def test_an_interrupted_run_is_not_resumed_on_another_base(runs: Runs, tmp_path: Path) -> None:
    base = Path(shutil.copytree(runs.base, tmp_path / "base"))
    folder = tmp_path / "run"
    argv = ["--do_train", "--save_strategy", "steps", "--save_steps", 1, "--keep_checkpoint", "--output_dir", folder]
    assert runs.run("qa", base, *argv) == (0, [])
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps(document | {"status": "interrupted"}), encoding="utf-8")
    shutil.copy(runs.other / "model.safetensors", base)
    assert runs.run("qa", base, *argv) == (
        2,
        [
            f"error: {folder} (the interrupted run) was trained on {base}; {base} has other weights; give it as it was "
            f"then, or train it anew on {base}"
        ],
    )


def test_random_bases_are_compared_when_they_are_drawn(runs: Runs, tmp_path: Path) -> None:
    argv = ["--do_train", "--random_init", "True", "--seed"]
    assert runs.run("mlm", runs.base, *argv, 1, "--output_dir", tmp_path / "mlm") == (0, [])
    further = ["--load_adapter", tmp_path / "mlm", "--output_dir"]
    assert runs.run("mlm", runs.base, *argv, 1, *further, tmp_path / "same") == (0, [])
    code, (line,) = runs.run("mlm", runs.base, *argv, 2, *further, tmp_path / "other")
    assert code == 2
    assert f"was trained on {tmp_path / 'mlm' / 'base'}; {runs.base} has other weights" in line
    code, lines = runs.run("mlm", tmp_path / "mlm" / "base", "--do_train", "--dry_run", *further[:2])
    assert (code, lines) == (0, [])


# ---------------------------------------------------------------- tokenizers


def test_another_vocabulary_is_refused_and_said(runs: Runs, tmp_path: Path) -> None:
    base = Path(shutil.copytree(runs.base, tmp_path / "base"))
    path = base / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["Ana"], vocabulary["Davi"] = vocabulary["Davi"], vocabulary["Ana"]
    path.write_text(json.dumps(document), encoding="utf-8")
    line = (
        f"{runs.saved('qa')} (adapter qa) was trained on {runs.base}; {base} has another vocabulary; give "
        f"--tokenizer_name {runs.base}"
    )
    load = ["--load_adapter", runs.folder / "qa", "--max_eval_samples", 1]
    refused = f"error: {line}, or train it anew on {base}"
    assert runs.run("qa", base, "--do_train", "--dry_run", *load) == (2, [refused])
    said = f"note: {line}; otherwise the results are not those of its run"
    assert runs.run("qa", base, "--do_eval", "--output_dir", tmp_path / "eval", *load) == (0, [said])
    assert runs.run("qa", base, "--do_train", "--dry_run", "--tokenizer_name", runs.base, *load) == (0, [])


def test_options_of_the_tokenizer_belong_to_what_was_trained(runs: Runs, tmp_path: Path) -> None:
    run = tmp_path / "qa"
    assert runs.run("qa", runs.base, "--do_train", "--do_lower_case", "True", "--output_dir", run) == (0, [])
    fused = ["--do_train", "--dry_run", "--fuse_adapters", f"a={run}", f"b={runs.folder / 'ner'}"]
    code, lines = runs.run("qa", runs.base, *fused)
    assert (code, lines) == (
        2,
        [
            f"error: {run / 'adapters-qa'} (adapter a) was trained on {runs.base}; {runs.base} has another treatment "
            f"of capitals, accents or blanks; give --do_lower_case True, or train it anew on {runs.base}"
        ],
    )
    # A saved run that is evaluated or asked brings its own options.
    load = ["--do_eval", "--load_adapter", run, "--max_eval_samples", 1, "--output_dir", tmp_path / "eval"]
    assert runs.run("qa", runs.base, *load) == (0, [])
    metadata = json.loads((run / "adapters-qa" / "adapter_setup.json").read_text(encoding="utf-8"))["trainer"]
    assert (metadata["do_lower_case"], metadata["strip_accents"]) == (True, None)
    asked = QuestionAnswerer(run)
    assert asked.tokenizer.tokenize("Ana") == asked.tokenizer.tokenize("ana")
