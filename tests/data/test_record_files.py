"""Where records come from: compressed files, tables and data sets, within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from adapter_qa.core import files
from adapter_qa.core.errors import UserError
from adapter_qa.data.readers.columnar import read_table
from adapter_qa.data.readers.compression import format_of, read_content, unpacked_name
from adapter_qa.data.readers.dataset_library import dataset_source, load_dataset, split_names
from adapter_qa.data.readers.json_csv import read_records, stream_records
from adapter_qa.data.readers.record_files import read_rows, stream_rows
from adapter_qa.data.readers.records import Record

LIMIT = 64 * 1024  # bytes
ROWS = [{"tokens": ["A", "Ana"], "tags": [0, 1], "kind": 2}, {"tokens": [], "tags": [], "kind": 0}]
CLASSES = {"tags": ("O", "B-PER"), "kind": ("a", "b", "c")}
FEATURES = datasets.Features(
    {
        "tokens": datasets.List(datasets.Value("string")),
        "tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
        "kind": datasets.ClassLabel(names=["a", "b", "c"]),
    }
)


def problem_of(function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    (problem,) = caught.value.problems
    return problem


def fields_of(path: Path, max_bytes: int | None = None) -> list[Any]:
    return [record.fields for record in read_table(path, max_bytes).records]


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


def write_arrow(path: Path, table: pyarrow.Table, *, compression: str | None = None, as_file: bool = False) -> Path:
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    new = pyarrow.ipc.new_file if as_file else pyarrow.ipc.new_stream
    with new(str(path), table.schema, options=options) as writer:
        writer.write_table(table)
    return path


# --- content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix", "unpacked"),
    [
        ("a.json", ".json", "a.json"),
        ("a.JSON.GZ", ".json", "a.JSON"),
        ("a.b.csv.zst", ".csv", "a.b.csv"),
        ("a.tar.gz", ".tar", "a.tar"),
        ("a.gz", "", "a"),
        ("a", "", "a"),
    ],
)
def test_names(name: str, suffix: str, unpacked: str) -> None:
    assert format_of(Path(name)) == suffix
    assert unpacked_name(Path("folder") / name) == Path("folder") / unpacked


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_content(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.json{suffix}"
    content = bytes(range(256)) * 8
    compressed = COMPRESSIONS[suffix](content)
    path.write_bytes(compressed)
    assert read_content(path) == read_content(path, len(content)) == content
    assert problem_of(read_content, path, len(content) - 1).endswith(
        f"a.json{suffix}: unpacks to more than 2,047 bytes, the most that is read; give a part of it"
    )
    monkeypatch.setattr(files, "MAX_BYTES", 2047)
    assert "unpacks to more than 2,047 bytes" in problem_of(read_content, path)
    for damaged in (b'{"data": []}', compressed[:-9], compressed[:1]):
        path.write_bytes(damaged)
        assert f"{path}: cannot be unpacked as {suffix}: " in problem_of(read_content, path)
    assert "cannot be unpacked" in problem_of(read_content, tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_file_is_read_no_further_than_its_limit(tmp_path: Path, suffix: str) -> None:
    """The end of the file is missing, and is not reached."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](random.Random(0).randbytes(2 * 1024**2))[:-20])
    assert "unpacks to more than 65,536 bytes" in problem_of(read_content, path, LIMIT)


# --- streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"a": "1"}, {"a": "2"}]'),
        ("a.jsonl", '\ufeff\r\n{"a": "x\u2028y"}\r\n\n{"a"\n5'),
        ("a.csv", 'sep=;\n"a";"b"\n"1\n2";"é"\n3\n'),
        ("a.csv", "\n\r\na\tb\r1\t2\r3\t4"),
        ("a.tsv", "\ufeffa,b\n1,2\n\n3,4,5\n"),
    ],
)
def test_streamed_records_are_those_of_the_whole_file(tmp_path: Path, name: str, text: str, suffix: str) -> None:
    path = tmp_path / (name + suffix)
    path.write_bytes(COMPRESSIONS.get(suffix, bytes)(text.encode()))
    records = [*read_rows(path).records]
    assert [*stream_rows(path)] == records
    assert len(records) == (3 if name == "a.jsonl" else 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.gz"])
def test_streams_are_refused_as_whole_files_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for content in (None, b"", b" \n\n", b"Bel\xe9m", b"\x1f\x8b", b"\xff\xfea\0"):
        if content is not None:
            path.write_bytes(content)
        problem = problem_of(lambda: [*stream_rows(path)])
        assert problem == problem_of(lambda: [*read_rows(path).records])


class LastingStream(io.BytesIO):
    """A stream that its reader does not close."""

    def close(self) -> None:
        """Stay open."""


def test_a_line_without_an_end_is_read_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", LIMIT)
    for suffix, content in ((".jsonl", b"[" + b"1," * LIMIT), (".csv", b'a\n"' + b"x\n" * LIMIT)):
        stream = LastingStream(content)
        problem = problem_of(list, stream_records("a", stream, suffix))
        assert (
            "more than 65,536 characters" if suffix == ".jsonl" else "not CSV after line 1: field larger"
        ) in problem
        assert stream.tell() < len(content)


def test_a_stream_is_read_while_its_records_are_taken(tmp_path: Path) -> None:
    """Of Parquet a part of a row group: the texts of all have 20 MB."""
    stream = LastingStream(b'{"a": 1}\n' * 100_000)
    assert next(stream_records("a", stream, ".jsonl")) == Record("line 1", {"a": 1})
    assert stream.tell() <= LIMIT
    path = tmp_path / "a.parquet"
    texts = [f"{number}" + "x" * 1000 for number in range(20_000)]
    table = pyarrow.table({"a": texts})
    pyarrow.parquet.write_table(table, path)
    del table
    before, most = pyarrow.total_allocated_bytes(), 0
    for text, record in zip(texts, stream_rows(path), strict=True):
        assert record.fields == {"a": text}
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 8 * 1024**2


# --- tables --------------------------------------------------------------------------------------------------


def write_tables(folder: Path) -> list[Path]:
    """Write the rows in every format, with the note of `datasets` on classes."""
    dataset = datasets.Dataset.from_list(ROWS, features=FEATURES)
    table = dataset.with_format("arrow")[:].replace_schema_metadata(FEATURES.arrow_schema.metadata)
    dataset.to_parquet(folder / "datasets.parquet")
    pyarrow.parquet.write_table(table, folder / "pyarrow.parquet", compression="zstd", use_dictionary=False)
    (folder / "packed.parquet.gz").write_bytes(gzip.compress((folder / "pyarrow.parquet").read_bytes()))
    write_arrow(folder / "stream.arrow", table)
    write_arrow(folder / "file.ARROW", table, as_file=True)
    write_arrow(folder / "lz4.arrow", table, compression="lz4")
    write_arrow(folder / "zstd.arrow", table, compression="zstd", as_file=True)
    return sorted(folder.iterdir())


def test_tables(tmp_path: Path) -> None:
    paths = write_tables(tmp_path)
    assert len(paths) == 7
    for path in paths:
        rows = read_table(path)
        assert rows.class_names == CLASSES
        assert list(rows.records) == [Record("row 0", ROWS[0]), Record("row 1", ROWS[1])]
        assert list(read_rows(path).records) == [Record("row 0", ROWS[0]), Record("row 1", ROWS[1])]


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(["á", None]),
        pyarrow.array(["á", None, "x" * 30], pyarrow.string_view())[1:],  # polars writes such
        pyarrow.array(["á", None]).dictionary_encode(),  # pandas writes categories so
        pyarrow.array([1, None]).dictionary_encode(),
        pyarrow.array([["á"], None], pyarrow.large_list(pyarrow.large_string())),
        pyarrow.array([[1.5, 2.5], [0, 1]], pyarrow.list_(pyarrow.float32(), 2)),
        pyarrow.array([{"text": ["á", ""], "n": [True]}, {"text": [], "n": [None]}]),
        pyarrow.array([[("k", "v")], []], pyarrow.map_(pyarrow.string(), pyarrow.string())),
        pyarrow.nulls(2),
        pyarrow.array([b"\0", None]),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_types_of_columns(tmp_path: Path, column: pyarrow.Array) -> None:
    table = pyarrow.table({"c": column})
    write_arrow(tmp_path / "a.arrow", table)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        assert fields_of(path) == [{"c": value} for value in column.to_pylist()]


def test_a_type_that_may_repeat_values_is_refused(tmp_path: Path) -> None:
    column = pyarrow.RunEndEncodedArray.from_arrays([10**9], ["x"])
    path = write_arrow(tmp_path / "a.arrow", pyarrow.table({"c": column}))
    problem = problem_of(fields_of, path)
    assert problem.startswith(f"{path}: cannot be read after row 0: a column has the type run_end_encoded<")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", b"{}" * 100, b"\xff" * 200], ids=repr)
def test_what_is_no_table(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert problem_of(fields_of, path).startswith(f"{path}: not a readable {path.suffix} table: ")
    path.unlink()
    assert "No such file" in problem_of(fields_of, path)


def test_damaged_tables(tmp_path: Path) -> None:
    """Every truncation of a table is reported in a line; some truncated streams have whole rows at their beginning."""
    for path in write_tables(tmp_path):
        content = path.read_bytes()
        for size in range(0, len(content), 97):
            path.write_bytes(content[:size])
            with suppress(UserError):
                assert fields_of(path) in ([], ROWS)


TOO_LARGE = "unpacks to more than 65,536 bytes, the most that is read; give a part of it"


def bombs(folder: Path) -> list[Path]:
    """Write small tables that take far more than `LIMIT` bytes of memory."""
    rows, text = 500, "a" * 40_000
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array([text]))
    texts = pyarrow.array([text] * rows)
    columns = {
        "plain": texts,
        "repeated": repeated,
        "nested": pyarrow.ListArray.from_arrays(pyarrow.array([0, rows]), texts),
        "nulls": pyarrow.nulls(1_000_000, pyarrow.string()),
    }
    for name, column in columns.items():
        table = pyarrow.table({"c": column})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", compression="zstd")
        write_arrow(folder / f"{name}.arrow", table, compression="zstd")
    path = folder / "declared.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"c": texts}), path, compression="zstd", use_dictionary=False)
    view = np.array([[len(text), int.from_bytes(b"aaaa", "little"), 0, 0]] * rows, np.int32)
    buffers = [None, pyarrow.py_buffer(view.tobytes()), pyarrow.py_buffer(text.encode())]
    views = pyarrow.Array.from_buffers(pyarrow.string_view(), rows, buffers)
    write_arrow(folder / "views.arrow", pyarrow.table({"c": views}), compression="zstd")
    (folder / "packed.arrow.bz2").write_bytes(bz2.compress(bytes(10**6)))
    return sorted(folder.iterdir())


# Counts what pyarrow allocates. It is never deleted, because arrays may outlive a test.
MEMORY = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())


def test_tables_that_unpack_to_too_much(tmp_path: Path) -> None:
    paths = bombs(tmp_path)
    assert len(paths) == 11
    default = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(MEMORY)
    try:
        for path in paths:
            assert path.stat().st_size < 2 * LIMIT
            assert problem_of(fields_of, path, LIMIT) == f"{path}: {TOO_LARGE}"
            assert MEMORY.max_memory() < 20 * LIMIT, path
    finally:
        pyarrow.set_memory_pool(default)


def test_default_limit_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"c": ["x" * 10] * 1000}), path)
    assert len(fields_of(path)) == 1000
    assert len(fields_of(path, 42_000)) == 1000
    monkeypatch.setattr(files, "MAX_BYTES", 41_999)
    assert "unpacks to more than 41,999 bytes" in problem_of(fields_of, path)


# --- records of any columns ----------------------------------------------------------------------------------


def test_records_without_needed_columns() -> None:
    """Text and sentences have other columns than questions."""
    expected = [Record("row 0", {"text": "a"}), Record("row 1", {"text": "b"})]
    assert list(read_records("a", b'{"version": 1, "text": ["a", "b"]}', ".json")) == expected
    assert list(read_records("a", b'"a"\n"b"', ".json")) == [Record("line 1", "a"), Record("line 2", "b")]
    assert list(read_records("a", b"text;label\na,b;c\n", ".csv")) == [Record("line 2", {"text": "a,b", "label": "c"})]
    problem = problem_of(list, read_records("a", b"text\nx\n", ".csv", {"word_column": "word"}))
    assert problem == "a: no column word; found: text; name others with --word_column"


# --- data sets -----------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections, and keep what `datasets` caches in the test's folder."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("offline")
def test_saved_data_sets(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(ROWS, features=FEATURES)
    folder = tmp_path / "dict"
    datasets.DatasetDict({"train": dataset, "validation": dataset.select([1])}).save_to_disk(folder)
    for split, expected in (("train", ROWS), ("validation", ROWS[1:])):
        rows = load_dataset(str(folder), None, split)
        assert rows.class_names == CLASSES
        assert list(rows.records) == [Record(f"row {number}", row) for number, row in enumerate(expected)]
    assert split_names(str(folder), None) == ["train", "validation"]
    problem = problem_of(load_dataset, str(folder), None, "test")
    assert problem.endswith("split 'test': cannot be loaded: its splits are train, validation")

    dataset.save_to_disk(tmp_path / "single")
    assert split_names(str(tmp_path / "single"), None) == ["train"]
    assert [record.fields for record in load_dataset(str(tmp_path / "single"), None, "train").records] == ROWS
    assert "its splits are train" in problem_of(load_dataset, str(tmp_path / "single"), None, "validation")
    (tmp_path / "single" / "state.json").write_text("{}")
    assert "cannot be loaded: " in problem_of(load_dataset, str(tmp_path / "single"), None, "train")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_folders_of_files(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "squad"  # is on the hub, too
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        table = pyarrow.table({"text": [split]})
        if suffix == ".parquet":
            pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
        else:
            (folder / f"{split}.jsonl").write_text(json.dumps({"text": split}))
    assert list(load_dataset(str(folder), None, "validation").records) == [Record("row 0", {"text": "validation"})]
    assert split_names(str(folder), None) == ["train", "validation"]
    (folder / "squad.py").write_text("raise AssertionError('code of a data set ran')")
    assert "Dataset scripts are no longer supported" in problem_of(load_dataset, str(folder), None, "train")
    (folder / "squad.py").unlink()
    monkeypatch.chdir(folder.parent)
    assert list(load_dataset("squad", None, "train").records) == [Record("row 0", {"text": "train"})]
    assert dataset_source("squad", None, "train") == {"dataset": str(folder), "config": None, "split": "train"}
    assert dataset_source("a/b", "c", "train") == {"dataset": "a/b", "config": "c", "split": "train"}


@pytest.mark.usefixtures("offline")
def test_names_that_are_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.pkl").write_bytes(pickle.dumps({}))
    for name in ("./none", "/none", "a/b/c", "~/squad"):
        assert problem_of(load_dataset, name, None, "train") == (
            f"--dataset_name {name}: no such folder; give a folder or an id of the hub, OWNER/NAME"
        )
    assert problem_of(load_dataset, "train.pkl", None, "train").startswith(
        "--dataset_name train.pkl: is a file; give it"
    )
    for name in ("pandas", "json"):  # `datasets` would read files of the current folder
        assert problem_of(split_names, name, None).startswith(f"--dataset_name {name}: is a format of files; give a ")


def test_dates_and_decimals_are_text(tmp_path: Path) -> None:
    values = [date(2026, 11, 27), datetime(2026, 11, 27, 8, 30), Decimal("1.50"), time(8, 30)]
    table = pyarrow.table({str(number): [value] for number, value in enumerate(values)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    (fields,) = fields_of(tmp_path / "a.parquet")
    assert fields == {"0": "2026-11-27", "1": "2026-11-27 08:30:00.000000", "2": "1.50", "3": "08:30:00.000000"}


def test_damaged_offsets_of_arrow_files_are_reported(tmp_path: Path) -> None:
    """Offsets of texts that point behind their bytes would end the process when the texts are read."""
    texts = pyarrow.array(["abc", "de"])
    offsets = pyarrow.py_buffer(np.array([0, 2**30, 5], np.int32))
    damaged = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, texts.buffers()[2]])
    path = write_arrow(tmp_path / "a.arrow", pyarrow.table({"c": damaged}))
    assert problem_of(fields_of, path).startswith(f"{path}: cannot be read after row 0: ")
