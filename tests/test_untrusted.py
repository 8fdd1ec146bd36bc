"""Files from strangers: what would run code, leave its folder or fill the memory is refused, and nothing happens."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.legacy_saves import LegacyModel
from support.questions import make_questions, write_squad

import ask_qa
import convert_2021_adapters
import predictor_qa
import prepare_squad_pt
import run_qa_adapter
from adapter_qa.config.options import AdapterOptions, ModelOptions
from adapter_qa.core import files
from adapter_qa.core.cli import run_cli
from adapter_qa.core.errors import CONTROL_CHARS, MAX_PROBLEM_CHARS, UserError, escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.data import squad_archive
from adapter_qa.data.squad_archive import ARCHIVE_MEMBERS
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_model import load_model, load_tokenizer, read_base_config
from adapter_qa.models.build import build_setup
from adapter_qa.models.save import save_setup
from adapter_qa.models.saved_adapters import read_setup
from adapter_qa.models.weights import check_states, read_weights, weight_names

WINDOWS = {
    "max_seq_length": 64, "doc_stride": 16, "n_best_size": 20, "max_answer_length": 30, "version_2": False,
    "null_score_diff_threshold": 0.0,
}  # fmt: skip
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"


class Evil:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What must never be there."""
    return tmp_path / "made_by_a_stranger"


def run(main: Any, words: list[Any], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["door.py", *map(str, words)])
    return run_cli(main)


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    (problem,) = caught.value.problems
    return problem


def test_the_pickle_would_do_harm(target: Path) -> None:
    pickle.loads(pickle.dumps(Evil(target)))
    assert target.is_dir()


# ---------------------------------------------------------------- pickles


def write_evil(path: Path, target: Path, *, zipped: bool, inside: bool) -> None:
    """A file of `torch.save` with the pickle alone, or among tensors."""
    content = {"weight": torch.zeros(2), "more": Evil(target)} if inside else Evil(target)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("inside", [True, False], ids=["among tensors", "alone"])
def test_weights_that_are_pickles(tmp_path: Path, target: Path, zipped: bool, inside: bool) -> None:
    path = tmp_path / "pytorch_adapter.bin"
    write_evil(path, target, zipped=zipped, inside=inside)
    for read in (read_weights, weight_names):
        assert refusal(read, path) == (
            f"{path}: holds more than tensors and plain values, and nothing else is loaded; it may be damaged or "
            "harmful"
        )
    path.write_bytes(pickle.dumps(Evil(target)))
    assert refusal(read_weights, path).startswith(f"{path}: ")
    assert not target.exists()


def test_a_pickle_with_the_name_of_a_safe_file(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(pickle.dumps(Evil(target)))
    assert refusal(read_weights, path).startswith(f"{path}: the weights cannot be read (")
    assert not target.exists()


def test_no_environment_variable_lets_pickles_in(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    write_evil(tmp_path / "rng_state.pth", target, zipped=True, inside=True)
    assert "holds more than tensors" in refusal(check_states, tmp_path)
    assert not target.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_base_model_that_is_a_pickle(tmp_path: Path, tiny_bert: Path, target: Path, zipped: bool) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    (base / "model.safetensors").unlink()
    write_evil(base / "pytorch_model.bin", target, zipped=zipped, inside=True)
    assert refusal(load_model, ModelOptions(str(base)), "qa").startswith(f"{base}: the weights cannot be loaded (")
    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    ["qa_squad/pytorch_adapter.bin", "qa_squad,ner_lener/pytorch_model_adapter_fusion.bin", "pytorch_model_head.bin"],
)
def test_saves_of_2021_that_are_pickles(
    name: str, tmp_path: Path, tiny_bert: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = LegacyModel(tiny_bert)
    old = world.save_all(tmp_path / "old", ("qa_squad", "ner_lener"))
    world.save_fusion(old / world.fusion.name)
    world.save_head(old)
    write_evil(old / name, target, zipped=True, inside=True)
    words = [old, "--model_name_or_path", tiny_bert, "--question", "Onde?", "--context", "Ana."]
    assert run(ask_qa.main, words, monkeypatch) == 2
    assert run(convert_2021_adapters.main, [old, tmp_path / "new"], monkeypatch) == 2
    assert not target.exists() and not list(tmp_path.glob("new*"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tuple[Path, list[str]]:
    """The folder of a run that its run.json says was not finished, and its words."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_squad(folder / "train.json", make_questions(8, 1))
    words = [
        "--model_name_or_path", str(tiny_bert), "--do_train", "--train_file", str(folder / "train.json"),
        "--max_seq_length", "64", "--doc_stride", "16", "--num_train_epochs", "1", "--report_to", "none",
        "--disable_tqdm", "True",
    ]  # fmt: skip
    assert run_qa_adapter.main([*words, "--output_dir", str(folder / "run")]) == 0
    path = folder / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"status": "running"}))
    return folder / "run", words


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"])
def test_a_checkpoint_that_somebody_sent(
    name: str,
    interrupted: tuple[Path, list[str]],
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whole by its own account, and still nothing in it is run."""
    folder, words = interrupted
    sent = Path(shutil.copytree(folder, tmp_path / "sent"))
    (checkpoint,) = sent.glob("checkpoint-*")
    for one in (name, "training_args.bin"):
        write_evil(checkpoint / one, target, zipped=True, inside=True)
    write_manifest(checkpoint)
    assert run(run_qa_adapter.main, [*words, "--output_dir", sent], monkeypatch) == 2
    assert f"error: {checkpoint / name}: holds more than tensors and plain values" in capsys.readouterr().err
    assert not target.exists()


def test_training_args_of_a_checkpoint_are_never_read(
    interrupted: tuple[Path, list[str]], tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, words = interrupted
    sent = Path(shutil.copytree(folder, tmp_path / "sent"))
    (checkpoint,) = sent.glob("checkpoint-*")
    write_evil(checkpoint / "training_args.bin", target, zipped=True, inside=False)
    write_manifest(checkpoint)
    assert run(run_qa_adapter.main, [*words, "--output_dir", sent], monkeypatch) == 0
    assert not target.exists()


def write_manifest(checkpoint: Path) -> None:
    """Makes a changed checkpoint whole again by its own account."""
    path = checkpoint / "manifest.json"
    if not path.is_file():
        return
    listed = {
        one.relative_to(checkpoint).as_posix(): {
            "bytes": one.stat().st_size,
            "sha256": hashlib.sha256(one.read_bytes()).hexdigest(),
        }
        for one in checkpoint.rglob("*")
        if one.is_file() and one != path
    }
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"files": listed}))


# ---------------------------------------------------------------- configurations


CODE = "import os\nos.mkdir({target!r})\nclass Evil:\n    pass\n"


def with_code(folder: Path, target: Path, *names: str) -> None:
    """Puts code into a model folder, and says in the named files that it is to be used."""
    (folder / "evil.py").write_text(CODE.format(target=str(target)))
    classes = ("AutoConfig", "AutoModelForQuestionAnswering", "AutoModel")
    auto_map: dict[str, Any] = dict.fromkeys(classes, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for name in names:
        path = folder / name
        changed = {"auto_map": auto_map} | ({"tokenizer_class": "Evil"} if name.startswith("tokenizer") else {})
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed))


def never_asked(*args: Any) -> str:
    raise AssertionError("the library asks whether to run a stranger's code")


def test_code_beside_a_model_is_not_run(
    tmp_path: Path, tiny_bert: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    with_code(base, target, "config.json")
    monkeypatch.setattr("builtins.input", never_asked)
    assert type(load_model(ModelOptions(str(base)), "qa")).__name__ == "BertForQuestionAnswering"
    assert load_tokenizer(ModelOptions(str(base))).is_fast
    assert not target.exists()


def test_code_beside_a_tokenizer_is_not_run(
    tmp_path: Path, tiny_bert: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    with_code(base, target, "tokenizer_config.json")
    monkeypatch.setattr("builtins.input", never_asked)
    problem = refusal(load_tokenizer, ModelOptions(str(base)))
    assert problem.startswith(f"{base}: no tokenizer can be loaded (ValueError: ")
    assert not target.exists()


@pytest.fixture
def saved(tmp_path: Path, tiny_bert: Path) -> Path:
    """A QA adapter as a run leaves it."""
    options = ModelOptions(str(tiny_bert))
    model = load_model(options, "qa")
    setup = resolve_setup("qa", read_base_config(options), AdapterOptions())
    assert setup is not None
    build_setup(model, setup)
    base = {"name_or_path": str(tiny_bert), "revision": "main"}
    save_setup(model, setup, tmp_path / "adapters-qa", {"base_model": base, "tokenizer": None, "windows": WINDOWS})
    return tmp_path / "adapters-qa"


def change_facts(folder: Path, **values: Any) -> None:
    path = folder / "adapter_setup.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"trainer": document["trainer"] | values}))


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_attn_implementation"])
def test_a_saved_folder_whose_base_would_run_code(key: str, saved: Path, tiny_bert: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, saved / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {key: "org/evil"}))
    change_facts(saved, base_model={"name_or_path": "./base"})
    assert refusal(predictor_qa.QuestionAnswerer, saved) == (
        f"{base / 'config.json'}: sets {key}, which can run code; remove it if you trust the rest"
    )


def test_a_saved_folder_whose_base_is_elsewhere_says_so(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_facts(saved, base_model={"name_or_path": "stranger/model"})
    assert refusal(predictor_qa.QuestionAnswerer, saved).startswith(
        "--model_name_or_path stranger/model: no config.json"
    )
    assert f"note: {saved}: names stranger/model as its base model; it is fetched" in capsys.readouterr().err


def test_a_saved_folder_whose_tokenizer_would_run_code(
    saved: Path, tiny_bert: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Path(shutil.copytree(tiny_bert, saved / "tokenizer"))
    with_code(stranger, target, "tokenizer_config.json")
    change_facts(saved, tokenizer=str(stranger))
    monkeypatch.setattr("builtins.input", never_asked)
    assert refusal(predictor_qa.QuestionAnswerer, saved).startswith(f"{stranger}: no tokenizer can be loaded (")
    assert not target.exists()


NAMES = ["../x", "/etc/x", "a/b", "a\0b", "", ".", "..", "a" * 121, "ção", "a b", "a\n", 3, None]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_saved_folder_are_no_paths(name: Any, saved: Path) -> None:
    path = saved / "adapter_setup.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["adapter_setup"] = {"type": "Stack", "children": [{"type": "single", "children": [name]}]}
    document["trainer"]["tasks"] = [name]
    path.write_text(json.dumps(document))
    assert refusal(read_setup, saved).startswith(f"{path}: ")


@pytest.mark.parametrize("label", ["<img src=x onerror=alert(1)>", "[a](b)", "a b", "", "\x1b[2J", "x" * 103])
def test_labels_in_a_saved_folder_are_plain(label: str, saved: Path) -> None:
    path = saved / "head_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"label2id": {label: 0}}))
    problem = refusal(read_setup, saved)
    assert problem.startswith(f"{path}: not written by this trainer, or damaged (Expected `str` matching regex")


# ---------------------------------------------------------------- archives and sizes


CONTENT = json.dumps([{"id": "q", "question": "?", "context": "x", "answers": {"text": ["x"], "answer_start": [0]}}])


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squad_archive, "MAX_ARCHIVE_BYTES", 1 << 20)
    bomb = tar_of(tmp_path / "bomb.tgz", (tarfile.TarInfo("zeros"), bytes(1 << 21)))
    assert bomb.stat().st_size < 10_000
    assert refusal(prepare_squad_pt.main, [str(bomb)]) == (
        f"{bomb}: unpacks to more than 1,048,576 bytes, the most that is read"
    )


def test_a_header_that_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name is read whole, before anyone sees how long it is."""
    monkeypatch.setattr(squad_archive, "MAX_ARCHIVE_BYTES", 1 << 20)
    bomb = tar_of(tmp_path / "bomb.tgz", (tarfile.TarInfo("x" * (1 << 21)), b""))
    assert "unpacks to more than" in refusal(prepare_squad_pt.main, [str(bomb)])


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_an_archive(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo(ARCHIVE_MEMBERS[0])
    info.type = kind
    path = tar_of(tmp_path / "a.tgz", (info, b""))
    assert refusal(prepare_squad_pt.main, [str(path)]) == f"{path}: {info.name} is a link or device, not a file"


def test_a_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ARCHIVE_MEMBERS:
            archive.writestr(name, CONTENT * 100)
    size = len(CONTENT * 100).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (40).to_bytes(4, "little")))
    assert refusal(prepare_squad_pt.main, [str(path)])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["q.json", "q.jsonl", "q.csv"])
def test_files_beyond_the_bound(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.read_bytes, "__defaults__", (100,))
    path = tmp_path / name
    path.write_bytes(b" " * 101)
    assert refusal(prepare_squad_pt.main, [str(path)]) == (
        f"{path}: is larger than 100 bytes, the most that is read; give a part of it"
    )


def test_a_device_is_not_read_for_ever(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is larger than 1,000 bytes"):
        files.read_bytes(tmp_path / "q.jsonl", 1000)


def test_a_compressed_file_is_not_unpacked_unasked(tmp_path: Path) -> None:
    path = tmp_path / "q.json.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    assert refusal(prepare_squad_pt.main, [str(path)]).startswith(f"{path}: extension '.gz'; allowed: ")


# ---------------------------------------------------------------- text


def test_inert_text() -> None:
    text = "São “Luís” 👩‍👩‍👧 e\u0301 \u05d0 ok"
    assert escape_control_chars(text) == text
    assert escape_control_chars(ESCAPES) == "\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\u000d"
    assert json.loads(escape_control_chars(json.dumps({"a": f"x{ESCAPES}\u2028"}, ensure_ascii=False))) == {
        "a": f"x{ESCAPES}\u2028"
    }
    assert escape_control_chars("\ud83d") == "\\ud83d"


def test_errors_and_notes_are_inert_and_short(capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError([f"a{ESCAPES}\nb", "x" * 10_000])
    assert error.problems[0] == "a\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\u000d\\u000ab"
    assert len(error.problems[1]) == MAX_PROBLEM_CHARS + len(" ... ")
    log_note([f"n{ESCAPES}\nb"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_questions_and_answers_are_printed_inert(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"id": "1", "question": f"q{ESCAPES}", "context": "c", "answer": f"a{ESCAPES}\n", "score": 0.5, "start": 0}
    ask_qa.show([answer, answer], as_json=as_json)
    printed = capsys.readouterr().out
    assert printed.count("\n") == (2 if as_json else 4)
    assert CONTROL_CHARS.search(printed.replace("\n", "")) is None
    if as_json:
        assert [json.loads(line) for line in printed.splitlines()] == [answer, answer]
