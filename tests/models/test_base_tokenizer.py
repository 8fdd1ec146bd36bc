"""The tokenizer of the base (adapter_qa/models/base_tokenizer.py): fingerprint, capitals and accents, SentencePiece."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.problems import problem_of
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast, XLMRobertaConfig
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

from adapter_qa.config.options import ModelOptions
from adapter_qa.models import base_tokenizer
from adapter_qa.models.base_model import load_tokenizer
from adapter_qa.models.base_tokenizer import tokenizer_fingerprint

SETTINGS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture
def copied(tmp_path: Path, tiny_bert: Path) -> Path:
    """A copy of the tiny BERT, which a test may change."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "copied"))


def with_vocabulary(folder: Path, words: Sequence[str], **settings: Any) -> Path:
    """Leave only a vocab.txt of these words, and tokenizer_config.json if there are settings."""
    for name in SETTINGS:
        (folder / name).unlink()
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


# ---------------------------------------------------------------- fingerprint


def test_the_fingerprint_does_not_depend_on_the_files(copied: Path, tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelOptions(str(tiny_bert)))
    expected = tokenizer_fingerprint(tokenizer)
    tokenizer(["Ana nasceu em Recife."], truncation=True, max_length=4, padding="max_length")
    tokenizer.save_pretrained(tmp_path / "saved")  # with truncation and padding
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_bert / name, tmp_path / "saved")
    assert tokenizer_fingerprint(load_tokenizer(ModelOptions(str(tmp_path / "saved")))) == expected
    for name in SETTINGS:
        (copied / name).unlink()
    assert tokenizer_fingerprint(load_tokenizer(ModelOptions(str(copied), do_lower_case=False))) == expected


def test_words_and_texts_have_one_fingerprint(tiny_bert: Path, tiny_roberta: Path) -> None:
    for base in (tiny_bert, tiny_roberta):
        texts, words = (load_tokenizer(ModelOptions(str(base)), split_words=split) for split in (False, True))
        assert tokenizer_fingerprint(texts) == tokenizer_fingerprint(words)


def test_what_changes_the_numbers_of_a_text_changes_the_fingerprint(tiny_bert: Path) -> None:
    def changed(**settings: Any) -> PreTrainedTokenizerFast:
        tokenizer: PreTrainedTokenizerFast = BertTokenizerFast.from_pretrained(tiny_bert, **settings)
        return tokenizer

    plain = tokenizer_fingerprint(changed())
    split = changed()
    split.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    added = changed()
    added.add_tokens(["Tribunal"])
    assert tokenizer_fingerprint(changed(do_lower_case=True)).vocabulary == plain.vocabulary
    texts = {tokenizer_fingerprint(tokenizer).text for tokenizer in (changed(), changed(do_lower_case=True), split)}
    assert len(texts) == 3
    assert tokenizer_fingerprint(added).vocabulary != plain.vocabulary


# ---------------------------------------------------------------- capitals and accents

CASED = ["Ana", "Brasil", "casa", "é", "São", "rio", "##a", "##s", "em"]
UNCASED = ["ana", "brasil", "casa", "sao", "rio", "##a", "##s", "em"]
ACCENTED = ["ana", "é", "são", "médica", "rio", "##a", "##ão", "em"]


@pytest.mark.parametrize(
    ("words", "settings", "options", "note"),
    [
        (CASED, {}, {}, "lower case, but 33% of the words in its vocabulary have capitals and are never found"),
        (CASED, {"do_lower_case": True}, {}, "add --do_lower_case False"),
        (CASED, {"do_lower_case": False}, {}, None),
        (CASED, {}, {"do_lower_case": False}, None),
        (CASED, {}, {"do_lower_case": True}, None),
        (ACCENTED, {}, {}, "removes accents, but 50% of the words in its vocabulary have some and are never found"),
        (ACCENTED, {"strip_accents": False}, {}, None),
        (ACCENTED, {}, {"strip_accents": False}, None),
        (UNCASED, {}, {}, None),
        (UNCASED, {"do_lower_case": False}, {}, "no word in its vocabulary has any"),
        (["漢", "字", "か"], {"do_lower_case": False}, {}, None),
    ],
)
def test_a_note_says_that_settings_do_not_fit_the_vocabulary(
    words: list[str],
    settings: dict[str, Any],
    options: dict[str, bool],
    note: str | None,
    copied: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_vocabulary(copied, words, **settings)
    load_tokenizer(ModelOptions(str(copied), **options))  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (note is not None)
    if note is not None:
        assert lines[0].startswith(f"note: {copied}: the tokenizer ")
        assert note in lines[0]


def test_settings_that_are_lost_though_tokenizer_json_has_them_are_recognised(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(ModelOptions(str(copied)))
    assert tokenizer.tokenize("Ana") == tokenizer.tokenize("ana")
    assert "add --do_lower_case False" in capsys.readouterr().err


def test_the_options_decide_over_the_files(copied: Path) -> None:
    with_vocabulary(copied, [*CASED, "ana", "sao", "são"])

    def tokens(**options: bool) -> list[str]:
        return load_tokenizer(ModelOptions(str(copied), **options)).tokenize("Ana São")  # type: ignore[arg-type]

    assert tokens() == ["ana", "sao"]
    assert tokens(do_lower_case=False) == ["Ana", "São"]
    assert tokens(strip_accents=False) == ["ana", "são"]
    assert tokens(do_lower_case=True, strip_accents=False) == ["ana", "são"]


def test_the_options_work_with_a_tokenizer_of_no_class(copied: Path) -> None:
    path = copied / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    tokenizer = load_tokenizer(ModelOptions(str(copied), do_lower_case=True, strip_accents=True))
    assert tokenizer.tokenize("São João") == tokenizer.tokenize("sao joao")
    tokenizer.save_pretrained(copied)
    assert load_tokenizer(ModelOptions(str(copied))).tokenize("São João") == tokenizer.tokenize("sao joao")


def test_options_that_a_tokenizer_does_not_have_are_refused(tiny_roberta: Path) -> None:
    options = ModelOptions(str(tiny_roberta), do_lower_case=False, strip_accents=True)
    assert problem_of(load_tokenizer, options) == (
        f"--do_lower_case and --strip_accents: the tokenizer of {tiny_roberta} (RobertaTokenizerFast) has no such "
        "setting; only those of BERT have; leave it out"
    )


# ---------------------------------------------------------------- other bases


def test_a_given_tokenizer_with_another_vocabulary_is_said(
    copied: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = with_vocabulary(Path(shutil.copytree(tiny_bert, tmp_path / "other")), UNCASED)
    options = ModelOptions(str(copied), tokenizer_name=str(other))
    load_tokenizer(options)
    assert capsys.readouterr().err == (
        f"note: --tokenizer_name {other}: has another vocabulary than the tokenizer of {copied}, so that the model "
        "sees other words than it was trained on; leave the option out, unless the model's own tokenizer is wrong\n"
    )
    load_tokenizer(ModelOptions(str(copied), tokenizer_name=str(tiny_bert)))
    for name in (*SETTINGS, "vocab.txt"):
        (copied / name).unlink()
    load_tokenizer(options)  # which the model itself lacks
    assert capsys.readouterr().err == ""


def test_token_types_that_the_base_does_not_have_are_left_out(copied: Path) -> None:
    path = copied / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"type_vocab_size": 1}), encoding="utf-8")
    assert "token_type_ids" not in load_tokenizer(ModelOptions(str(copied)))(["a"], ["b"])


@pytest.fixture
def xlm_roberta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with config.json and sentencepiece.bpe.model of an XLM-RoBERTa, as its first versions had."""
    monkeypatch.setattr(base_tokenizer, "is_sentencepiece_available", lambda: False)
    model: Any = vars(sentencepiece)["ModelProto"]()
    letters = sorted({letter for word in CASED for letter in word if letter.isalpha()})
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁Ana", -1.0, 1), ("▁é", -1.5, 1), ("▁", -3.0, 1)]
    for text, score, kind in [*pieces, *((letter, -4.0, 1) for letter in letters)]:
        model.pieces.add(piece=text, score=score, type=kind)
    model.trainer_spec.model_type = 1  # unigram
    folder = tmp_path / "xlm_roberta"
    XLMRobertaConfig(vocab_size=len(model.pieces) + 2).save_pretrained(folder)
    (folder / "model.safetensors").touch()
    (folder / "sentencepiece.bpe.model").write_bytes(model.SerializeToString())
    return folder


def test_a_sentencepiece_file_is_converted_without_its_package(xlm_roberta: Path, tmp_path: Path) -> None:
    (xlm_roberta / "tokenizer_config.json").write_text('{"model_max_length": 77}')
    tokenizer = load_tokenizer(ModelOptions(str(xlm_roberta)))
    encoding = tokenizer("Ana é", "Ana", return_offsets_mapping=True)
    assert encoding.tokens() == ["<s>", "▁Ana", "▁é", "</s>", "</s>", "▁Ana", "</s>"]
    assert encoding["input_ids"] == [0, 4, 5, 2, 2, 4, 2]  # a piece has its place in the file, plus 1
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    assert tokenizer.model_max_length == 77
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer_fingerprint(saved) == tokenizer_fingerprint(tokenizer)


@pytest.mark.parametrize(
    ("file", "kind", "named"),
    [
        ("sentencepiece.bpe.model", "CamembertTokenizer", "CamembertTokenizer"),
        ("spiece.model", None, "xlm-roberta"),
        ("spm.model", "XLMRobertaTokenizer", "XLMRobertaTokenizer"),
    ],
)
def test_other_sentencepiece_files_are_refused(file: str, kind: str | None, named: str, xlm_roberta: Path) -> None:
    (xlm_roberta / "sentencepiece.bpe.model").rename(xlm_roberta / file)
    if kind is not None:
        (xlm_roberta / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    assert problem_of(load_tokenizer, ModelOptions(str(xlm_roberta))) == (
        f"{xlm_roberta / file}: is a SentencePiece file of a {named}, and tokenizer.json is missing beside it; pip "
        "install sentencepiece, or save the tokenizer where that is installed: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


def test_a_damaged_sentencepiece_file_is_refused(xlm_roberta: Path) -> None:
    (xlm_roberta / "sentencepiece.bpe.model").write_bytes(b"\xff\xff\xff")
    problem = problem_of(load_tokenizer, ModelOptions(str(xlm_roberta)))
    assert problem.startswith(f"{xlm_roberta}: no tokenizer can be loaded (DecodeError: ")
