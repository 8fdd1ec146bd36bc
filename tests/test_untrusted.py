"""Untrusted files: those that would run code, leave their folder or fill the memory are rejected without effect."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.legacy_saves import LegacyModel
from support.problems import problem_of
from support.questions import make_questions, write_squad
from support.scripts import run_main

import ask_qa
import convert_2021_adapters
import predictor_qa
import prepare_squad_pt
import run_qa_adapter
from adapter_qa.config.options import AdapterOptions, ModelOptions
from adapter_qa.core import files
from adapter_qa.core.errors import CONTROL_CHARS, MAX_PROBLEM_CHARS, UserError, escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.data.readers import squad_archive
from adapter_qa.data.readers.squad_archive import ARCHIVE_MEMBERS
from adapter_qa.inference.answering import print_answers
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.models.save import save_setup
from adapter_qa.models.saved_adapters import read_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.models.weights import check_states, read_weights, weight_names

WINDOWS = {
    "max_seq_length": 64, "doc_stride": 16, "n_best_size": 20, "max_answer_length": 30, "version_2": False,
    "null_score_diff_threshold": 0.0,
}  # fmt: skip
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"


class FolderMaker:
    """An object that makes a folder when its pickle is loaded."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The folder that is made if the code in a file runs."""
    return tmp_path / "made_by_a_file"


def test_pickle_runs_its_code_if_it_is_loaded(target: Path) -> None:
    pickle.loads(pickle.dumps(FolderMaker(target)))
    assert target.is_dir()


# ---------------------------------------------------------------- pickles


def write_pickle(path: Path, target: Path, *, zipped: bool = True, with_tensors: bool = True) -> None:
    """Write a file of `torch.save` whose pickle makes a folder."""
    content = {"weight": torch.zeros(2), "other": FolderMaker(target)} if with_tensors else FolderMaker(target)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("with_tensors", [True, False], ids=["among tensors", "alone"])
def test_adapter_weights_in_a_pickle_are_rejected(
    tmp_path: Path, target: Path, zipped: bool, with_tensors: bool
) -> None:
    path = tmp_path / "pytorch_adapter.bin"
    write_pickle(path, target, zipped=zipped, with_tensors=with_tensors)
    for read in (read_weights, weight_names):
        assert problem_of(read, path) == (
            f"{path}: holds more than tensors and plain values, and nothing else is loaded; it may be damaged or "
            "harmful"
        )
    path.write_bytes(pickle.dumps(FolderMaker(target)))
    assert problem_of(read_weights, path).startswith(f"{path}: ")
    assert not target.exists()


def test_pickle_named_safetensors_is_rejected(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(pickle.dumps(FolderMaker(target)))
    assert problem_of(read_weights, path).startswith(f"{path}: the weights cannot be read (")
    assert not target.exists()


def test_environment_variable_of_torch_does_not_allow_pickles(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    write_pickle(tmp_path / "rng_state.pth", target)
    assert "holds more than tensors" in problem_of(check_states, tmp_path)
    assert not target.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_base_model_in_a_pickle_is_rejected(tmp_path: Path, tiny_bert: Path, target: Path, zipped: bool) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    (base / "model.safetensors").unlink()
    write_pickle(base / "pytorch_model.bin", target, zipped=zipped)
    assert problem_of(load_model, ModelOptions(str(base)), "qa").startswith(f"{base}: the weights cannot be loaded (")
    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    ["qa_squad/pytorch_adapter.bin", "qa_squad,ner_lener/pytorch_model_adapter_fusion.bin", "pytorch_model_head.bin"],
)
def test_pickles_of_adapter_transformers_2_are_rejected(
    name: str, tmp_path: Path, tiny_bert: Path, target: Path
) -> None:
    legacy = LegacyModel(tiny_bert)
    old = legacy.save_all(tmp_path / "old", ("qa_squad", "ner_lener"))
    legacy.save_fusion(old / legacy.fusion.name)
    legacy.save_head(old)
    write_pickle(old / name, target)
    question = ("--question", "Onde?", "--context", "Ana.")
    assert run_main(ask_qa.main, old, "--model_name_or_path", tiny_bert, *question).returncode == 2
    assert run_main(convert_2021_adapters.main, old, tmp_path / "new").returncode == 2
    assert not target.exists()
    assert not list(tmp_path.glob("new*"))


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tuple[Path, list[str]]:
    """The folder of a run that looks interrupted, and its command line without the folder."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_squad(folder / "train.json", make_questions(8, 1))
    argv = [
        "--model_name_or_path", str(tiny_bert), "--do_train", "--train_file", str(folder / "train.json"),
        "--max_seq_length", "64", "--doc_stride", "16", "--num_train_epochs", "1", "--report_to", "none",
        "--keep_checkpoint", "True",
    ]  # fmt: skip
    assert run_qa_adapter.main([*argv, "--output_dir", str(folder / "run")]) == 0
    path = folder / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"status": "running"}))
    return folder / "run", argv


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"])
def test_pickle_in_a_checkpoint_is_rejected(
    name: str, interrupted_run: tuple[Path, list[str]], tmp_path: Path, target: Path
) -> None:
    """The checkpoint is complete according to its manifest."""
    folder, argv = interrupted_run
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (checkpoint,) = copy.glob("checkpoint-*")
    for pickled in (name, "training_args.bin"):
        write_pickle(checkpoint / pickled, target)
    update_manifest(checkpoint)
    process = run_main(run_qa_adapter.main, *argv, "--output_dir", copy)
    assert process.returncode == 2
    assert f"error: {checkpoint / name}: holds more than tensors and plain values" in process.stderr
    assert not target.exists()


def test_training_args_of_a_checkpoint_are_never_read(
    interrupted_run: tuple[Path, list[str]], tmp_path: Path, target: Path
) -> None:
    folder, argv = interrupted_run
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (checkpoint,) = copy.glob("checkpoint-*")
    write_pickle(checkpoint / "training_args.bin", target, with_tensors=False)
    update_manifest(checkpoint)
    assert run_main(run_qa_adapter.main, *argv, "--output_dir", copy).returncode == 0
    assert not target.exists()


def update_manifest(checkpoint: Path) -> None:
    """List the present files of a changed checkpoint in its manifest."""
    path = checkpoint / "manifest.json"
    files = {
        file.relative_to(checkpoint).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in checkpoint.rglob("*")
        if file.is_file() and file != path
    }
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"files": files}))


# ---------------------------------------------------------------- configurations


CODE = "import os\nos.mkdir({target!r})\nclass Remote:\n    pass\n"


def add_code(folder: Path, target: Path, name: str) -> None:
    """Put code into a model folder and refer to it in the file `name`."""
    (folder / "remote.py").write_text(CODE.format(target=str(target)))
    classes = ("AutoConfig", "AutoModelForQuestionAnswering", "AutoModel")
    auto_map: dict[str, Any] = dict.fromkeys(classes, "remote.Remote")
    auto_map["AutoTokenizer"] = ["remote.Remote", "remote.Remote"]
    entries = {"auto_map": auto_map} | ({"tokenizer_class": "Remote"} if name.startswith("tokenizer") else {})
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries))


@pytest.fixture
def no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the library asks the user whether to run code."""

    def fail(*args: Any) -> str:
        raise AssertionError("the library asks whether to run the code")

    monkeypatch.setattr("builtins.input", fail)


@pytest.mark.usefixtures("no_input")
def test_code_in_a_model_folder_is_not_run(tmp_path: Path, tiny_bert: Path, target: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    add_code(base, target, "config.json")
    assert type(load_model(ModelOptions(str(base)), "qa")).__name__ == "BertForQuestionAnswering"
    assert load_tokenizer(ModelOptions(str(base))).is_fast
    assert not target.exists()


@pytest.mark.usefixtures("no_input")
def test_code_of_a_tokenizer_is_not_run(tmp_path: Path, tiny_bert: Path, target: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    add_code(base, target, "tokenizer_config.json")
    problem = problem_of(load_tokenizer, ModelOptions(str(base)))
    assert problem.startswith(f"{base}: no tokenizer can be loaded (ValueError: ")
    assert not target.exists()


@pytest.fixture
def saved_adapters(tmp_path: Path, tiny_bert: Path) -> Path:
    """The folder of a saved QA adapter."""
    options = ModelOptions(str(tiny_bert))
    model = load_model(options, "qa")
    setup = resolve_setup("qa", read_base_config(options), AdapterOptions())
    assert setup is not None
    build_setup(model, setup)
    base = {"name_or_path": str(tiny_bert), "revision": "main"}
    save_setup(model, setup, tmp_path / "adapters-qa", {"base_model": base, "tokenizer": None, "windows": WINDOWS})
    return tmp_path / "adapters-qa"


def change_metadata(folder: Path, **values: Any) -> None:
    path = folder / "adapter_setup.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"trainer": document["trainer"] | values}))


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_attn_implementation"])
def test_saved_base_model_that_can_run_code_is_rejected(key: str, saved_adapters: Path, tiny_bert: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, saved_adapters / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {key: "org/evil"}))
    change_metadata(saved_adapters, base_model={"name_or_path": "./base"})
    assert problem_of(predictor_qa.QuestionAnswerer, saved_adapters) == (
        f"{base / 'config.json'}: sets {key}, which can run code; remove the key if you trust the model"
    )


def test_base_model_from_the_hub_is_named_in_a_note(saved_adapters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_metadata(saved_adapters, base_model={"name_or_path": "unknown/model"})
    assert problem_of(predictor_qa.QuestionAnswerer, saved_adapters).startswith(
        "--model_name_or_path unknown/model: no config.json"
    )
    assert f"note: {saved_adapters}: names unknown/model as its base model; it is downloaded" in capsys.readouterr().err


def test_base_model_that_is_gone_is_reported(saved_adapters: Path, tmp_path: Path) -> None:
    """An absolute path is no hub id, so nothing is looked up there."""
    gone = tmp_path / "gone"
    change_metadata(saved_adapters, base_model={"name_or_path": str(gone)})
    assert problem_of(predictor_qa.QuestionAnswerer, saved_adapters) == (
        f"{saved_adapters}: its base model is no longer in {gone}; give --model_name_or_path"
    )


@pytest.mark.usefixtures("no_input")
def test_saved_tokenizer_with_code_is_rejected(saved_adapters: Path, tiny_bert: Path, target: Path) -> None:
    tokenizer = Path(shutil.copytree(tiny_bert, saved_adapters / "tokenizer"))
    add_code(tokenizer, target, "tokenizer_config.json")
    change_metadata(saved_adapters, tokenizer=str(tokenizer))
    assert problem_of(predictor_qa.QuestionAnswerer, saved_adapters).startswith(
        f"{tokenizer}: no tokenizer can be loaded ("
    )
    assert not target.exists()


INVALID_NAMES = ["../x", "/etc/x", "a/b", "a\0b", "", ".", "..", "a" * 121, "ção", "a b", "a\n", 3, None]


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_invalid_adapter_name_in_a_saved_folder_is_rejected(name: Any, saved_adapters: Path) -> None:
    path = saved_adapters / "adapter_setup.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["adapter_setup"] = {"type": "Stack", "children": [{"type": "single", "children": [name]}]}
    document["trainer"]["tasks"] = [name]
    path.write_text(json.dumps(document))
    assert problem_of(read_setup, saved_adapters).startswith(f"{path}: ")


@pytest.mark.parametrize("label", ["<img src=x onerror=alert(1)>", "[a](b)", "a b", "", "\x1b[2J", "x" * 103])
def test_label_with_markup_in_a_saved_folder_is_rejected(label: str, saved_adapters: Path) -> None:
    path = saved_adapters / "head_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"label2id": {label: 0}}))
    problem = problem_of(read_setup, saved_adapters)
    assert problem.startswith(f"{path}: not written by this trainer, or damaged (Expected `str` matching regex")


# ---------------------------------------------------------------- archives and sizes


CONTENT = json.dumps([{"id": "q", "question": "?", "context": "x", "answers": {"text": ["x"], "answer_start": [0]}}])


def write_member(path: Path, info: tarfile.TarInfo, content: bytes) -> Path:
    """Write a tar.gz archive with a single member."""
    info.size = len(content)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(info, io.BytesIO(content))
    return path


def test_archive_beyond_the_size_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squad_archive, "MAX_ARCHIVE_BYTES", 1 << 20)
    bomb = write_member(tmp_path / "bomb.tgz", tarfile.TarInfo("zeros"), bytes(1 << 21))
    assert bomb.stat().st_size < 10_000
    assert problem_of(prepare_squad_pt.main, [str(bomb)]) == (
        f"{bomb}: unpacks to more than 1,048,576 bytes, the most that is read"
    )


def test_archive_header_beyond_the_size_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads a member's name completely, whatever its length."""
    monkeypatch.setattr(squad_archive, "MAX_ARCHIVE_BYTES", 1 << 20)
    bomb = write_member(tmp_path / "bomb.tgz", tarfile.TarInfo("x" * (1 << 21)), b"")
    assert "unpacks to more than" in problem_of(prepare_squad_pt.main, [str(bomb)])


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_in_an_archive_is_rejected(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo(ARCHIVE_MEMBERS[0])
    info.type = kind
    path = write_member(tmp_path / "a.tgz", info, b"")
    assert problem_of(prepare_squad_pt.main, [str(path)]) == f"{path}: {info.name} is a link or device, not a file"


def test_zip_with_a_false_size_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ARCHIVE_MEMBERS:
            archive.writestr(name, CONTENT * 100)
    size = len(CONTENT * 100).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (40).to_bytes(4, "little")))
    assert problem_of(prepare_squad_pt.main, [str(path)])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["q.json", "q.jsonl", "q.csv"])
def test_question_file_beyond_the_size_limit_is_rejected(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    path = tmp_path / name
    path.write_bytes(b" " * 101)
    assert problem_of(prepare_squad_pt.main, [str(path)]) == (
        f"{path}: is larger than 100 bytes, the most that is read; give a part of it"
    )


def test_link_to_an_endless_device_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    (tmp_path / "q.jsonl").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is larger than 1,000 bytes"):
        files.read_bytes(tmp_path / "q.jsonl")


def test_gzip_file_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 19)
    path = tmp_path / "q.json.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    assert problem_of(prepare_squad_pt.main, [str(path)]).startswith(f"{path}: unpacks to more than 524,288 bytes")


# ---------------------------------------------------------------- text


def test_control_characters_are_escaped_and_other_text_is_unchanged() -> None:
    text = "São “Luís” 👩‍👩‍👧 e\u0301 \u05d0 ok"
    assert escape_control_chars(text) == text
    assert escape_control_chars(ESCAPES) == "\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\u000d"
    assert json.loads(escape_control_chars(json.dumps({"a": f"x{ESCAPES}\u2028"}, ensure_ascii=False))) == {
        "a": f"x{ESCAPES}\u2028"
    }
    assert escape_control_chars("\ud83d") == "\\ud83d"


def test_errors_and_notes_are_escaped_and_short(capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError([f"a{ESCAPES}\nb", "x" * 10_000])
    assert error.problems[0] == "a\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\u000d\\u000ab"
    assert len(error.problems[1]) == MAX_PROBLEM_CHARS + len(" ... ")
    log_note([f"n{ESCAPES}\nb"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_printed_questions_and_answers_are_escaped(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    answer: dict[str, Any] = {"id": "1", "question": f"q{ESCAPES}", "context": "c", "answer": f"a{ESCAPES}\n"}
    answer |= {"score": 0.5, "start": 0, "end": 1}
    print_answers([answer, answer], as_json=as_json, are_several=True)
    printed = capsys.readouterr().out
    assert printed.count("\n") == (2 if as_json else 4)
    assert CONTROL_CHARS.search(printed.replace("\n", "")) is None
    if as_json:
        assert [json.loads(line) for line in printed.splitlines()] == [answer, answer]
