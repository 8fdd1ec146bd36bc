"""Answers in blocks (adapter_qa/inference/answer_files.py): stopped runs, shards, Parquet, and what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from support.problems import problems_of
from support.saved_runs import SavedRuns
from support.scripts import run_main

import ask_qa
from adapter_qa.core.cli import output_problems
from adapter_qa.core.errors import RunError
from adapter_qa.inference import answer_files, requests
from adapter_qa.inference.answer_files import (
    AnswerFile,
    AnswerProgress,
    check_settings,
    open_answers,
    partial_folder,
    schema_of,
)
from adapter_qa.inference.answer_text import print_json
from adapter_qa.inference.answering import print_all
from adapter_qa.inference.requests import Requests, Shard, blocks, read_requests

NAMES = ("Ana", "Rui", "Eva")
RECORDS: list[dict[str, Any]] = [
    {"id": f"q{number}", "question": "Onde?", "context": f"{NAMES[number % 3]} nasceu em Belém, {number}.", "n": number}
    for number in range(11)
]
SETTINGS = {"--input": "a" * 64, "--n_best": None, "doc_stride": 16}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks have two questions."""
    monkeypatch.setattr(requests, "BLOCK_QUESTIONS", 2)


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


class FixedAnswer(NamedTuple):
    """An answer that does not depend on the question."""

    text: str = "Belém"
    windows: int = 1

    def document(self, n_best: int | None) -> dict[str, Any]:
        return {"answer": self.text, "score": 0.5, "start": 14, "end": 19}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rounded(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return answers without the last digits of their scores, which depend on the batch."""
    return [answer | {"score": pytest.approx(answer["score"], abs=1e-5)} for answer in answers]


def in_child(work: Callable[[], object]) -> int:
    """Run a function in a forked process and return its status as `os.wait` does."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_nothing_is_read_beyond_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks end after enough questions, or after enough characters of questions and contexts."""
    taken = 0

    def source(lengths: list[int]) -> Iterator[dict[str, Any]]:
        nonlocal taken
        for length in lengths:
            taken += 1
            yield {"question": "?", "context": "x" * (length - 1)}

    monkeypatch.setattr(requests, "BLOCK_QUESTIONS", 4)
    monkeypatch.setattr(requests, "BLOCK_CHARACTERS", 100)
    sizes, read = [], []
    for block in blocks(source([10] * 9 + [50, 50, 500, 99, 1, 10])):
        sizes.append(len(block))
        read.append(taken)
    assert sizes == [4, 4, 3, 1, 2, 1]
    assert read == [4, 8, 11, 12, 14, 15]
    assert [*blocks(iter([]))] == []


def test_every_question_is_printed_if_there_are_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if a block holds only one."""
    monkeypatch.setattr(requests, "BLOCK_QUESTIONS", 1)
    answer = "Belém   (probability 0.50, characters 14–19)"
    for number, printed in ((2, f"Onde?\n  {answer}\n" * 2), (1, f"{answer}\n")):
        asked = Requests(RECORDS[:number].__iter__, number)
        print_all(lambda pairs, n_best: [FixedAnswer()] * len(pairs), asked, None, as_json=False)
        assert capsys.readouterr().out == printed


@pytest.mark.parametrize("total", [1, 2, 3, 7, 12])
def test_shards_hold_every_question_once_and_in_order(total: int) -> None:
    shards = [Shard(number, total) for number in range(1, total + 1)]
    for count in (0, 1, 5, 12, 100):
        records: list[dict[str, Any]] = [{"id": number} for number in range(count)]
        parts = [shard.of(Requests(records.__iter__, count)) for shard in shards]
        taken = [[*part.read()] for part in parts]
        assert [len(part) for part in taken] == [part.count for part in parts]
        assert [*chain.from_iterable(taken)] == records
        assert max(map(len, taken)) - min(map(len, taken)) <= 1
    paths = [str(shard.path(Path("a.b/answers.jsonl"))) for shard in shards]
    assert sorted(paths) == paths
    assert paths[0] == ("a.b/answers-01-of-12.jsonl" if total == 12 else f"a.b/answers-1-of-{total}.jsonl")


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "3/0", "-1/8", "1.5/8", "a/b", "1/8/2", "٣/٨"])
def test_shards_that_cannot_be(text: str) -> None:
    message = f"--shard {text}: give I/N with I from 1 to N, such as 3/8 for the third of eight parts"
    assert problems_of(ask_qa.read_options, ["run", "--input", "a.jsonl", f"--shard={text}"]) == [message]


def test_shards_need_a_file() -> None:
    for words in (["--input", "-"], ["--question", "a", "--context", "b"]):
        assert problems_of(ask_qa.read_options, ["run", *words, "--shard", "1/2"]) == [
            "--shard takes a part of --input, which must be a file; leave it out"
        ]


def answer_all(output: Path, records: Iterable[dict[str, Any]], *, resumes: bool = True) -> int:
    """Write each record as its own answer, in blocks of two; return how many were there before."""
    with open_answers(output, SETTINGS, resumes=resumes) as answers:
        before, rest = answers.done, iter(records)
        answers.skip_done(rest)
        while block := [*islice(rest, 2)]:
            answers.write(block)
    return before


def test_answers_stopped_at_any_byte_are_completed(tmp_path: Path) -> None:
    """Half a line is never counted, and the file is the same as that of an undisturbed run."""
    records = [{"id": number, "a": "é"} for number in range(5)]
    output, whole = tmp_path / "a.jsonl", write_lines(tmp_path / "whole.jsonl", records).read_bytes()
    for size in range(len(whole) + 1):
        folder = partial_folder(output)
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        (folder / "answers.jsonl").write_bytes(whole[:size])
        assert answer_all(output, records) == whole[:size].count(b"\n")
        assert output.read_bytes() == whole
        assert not folder.exists()
        output.unlink()


def test_answers_of_other_settings_begin_anew(tmp_path: Path) -> None:
    """So do those to standard input, which cannot be read again; also if the process stopped before its first write."""
    output = tmp_path / "a.jsonl"
    folder = partial_folder(output)
    stopped = [
        (SETTINGS | {"--n_best": 2}, True),
        (SETTINGS, False),
        (None, True),
    ]
    for settings, resumes in stopped:
        folder.mkdir()
        write_lines(folder / "answers.jsonl", RECORDS[5:8])
        if settings is not None:
            (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        assert answer_all(output, RECORDS, resumes=resumes) == 0
        assert read_lines(output) == RECORDS
        output.unlink()


def test_a_stop_before_the_first_answer_leaves_nothing(tmp_path: Path) -> None:
    """A later one leaves what is answered."""
    output = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt), open_answers(output, SETTINGS, resumes=True):
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(ZeroDivisionError):
        answer_all(output, (record | {"id": 1 // (2 - number)} for number, record in enumerate(RECORDS)))
    assert not output.exists()
    assert len(read_lines(partial_folder(output) / "answers.jsonl")) == 2


def test_a_stop_of_what_cannot_be_resumed_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    with pytest.raises(ZeroDivisionError):
        answer_all(output, (record | {"id": 1 // (2 - n)} for n, record in enumerate(RECORDS)), resumes=False)
    assert [*tmp_path.iterdir()] == []


def test_answers_that_only_the_table_cannot_hold_stay(tmp_path: Path) -> None:
    """Also those to standard input: the message names their file."""
    output = tmp_path / "a.parquet"
    with pytest.raises(RunError, match=r"answers\.jsonl has all answers as JSON lines"):
        answer_all(output, [{"id": 1}, {"id": "a"}], resumes=False)
    assert read_lines(partial_folder(output) / "answers.jsonl") == [{"id": 1}, {"id": "a"}]


def test_settings_are_compared_with_those_of_answers_that_can_be_resumed(tmp_path: Path) -> None:
    """A killed run leaves its folder; that of a file of questions is kept from one that reads standard input."""
    output = tmp_path / "a.jsonl"
    partial_folder(output).mkdir()
    for earlier, problems in (
        ({"--input": None, "--n_best": 2}, []),
        (
            {"--input": "a" * 64, "--n_best": 2},
            [
                f"--output {output}: {output}.partial holds answers of an unfinished run with other settings: another "
                "--input, --n_best 2 then and not given now; give those of then, another file, or --overwrite"
            ],
        ),
    ):
        (partial_folder(output) / "settings.json").write_text(json.dumps(earlier), encoding="utf-8")
        if problems:
            assert problems_of(check_settings, output, {"--input": None, "--n_best": None}) == problems
        else:
            check_settings(output, {"--input": None, "--n_best": None})


def test_answers_of_other_questions_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    answers = AnswerFile(folder, io.BytesIO(), done=2, last_id="q7")
    assert problems_of(answers.skip_done, iter(RECORDS)) == [
        f"{folder}: answer 2 has the id 'q7', question 2 the id 'q1'; remove the folder to begin anew"
    ]


def test_numbers_that_json_lacks_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        answer_all(tmp_path / "a.jsonl", [{"id": 1, "score": float("nan")}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"score": float("nan")})
    assert [*tmp_path.iterdir()] == []


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    with open_answers(output, SETTINGS, resumes=True) as answers:
        answers.write(RECORDS[:2])

        def other() -> None:
            problem = f"--output {output}: another process writes it; wait for it, or give another file"
            if problems_of(answer_all, output, RECORDS) != [problem]:
                os.kill(os.getpid(), signal.SIGABRT)

        assert in_child(other) == 0
        assert answers.done == 2
    assert read_lines(output) == RECORDS[:2]


@pytest.mark.parametrize("before", [[], RECORDS[:2]])
def test_a_file_that_another_process_has_finished_is_not_replaced(tmp_path: Path, before: list[dict[str, Any]]) -> None:
    """It was not there when the options were checked. Answers that can be resumed stay."""
    output = tmp_path / "a.jsonl"

    def stopped() -> Iterator[dict[str, Any]]:
        yield from before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_all(output, stopped())
    write_lines(output, RECORDS[:3])
    problem = f"--output {output}: exists; add --overwrite or give another file"
    assert problems_of(answer_all, output, RECORDS) == [problem]
    assert read_lines(output) == RECORDS[:3]
    assert partial_folder(output).exists() == bool(before)
    with open_answers(output, SETTINGS, resumes=True, overwrite=True) as answers:
        assert answers.done == len(before)
    assert read_lines(output) == before


@pytest.mark.parametrize("resumes", [True, False])
def test_full_disk_is_reported_and_the_answers_stay_if_they_can_be_resumed(
    resumes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "a.jsonl"

    def records() -> Iterator[dict[str, Any]]:
        yield from RECORDS[:3]
        monkeypatch.setattr(os, "fsync", fail)
        yield from RECORDS[3:]

    with pytest.raises(RunError) as failed:
        answer_all(output, records(), resumes=resumes)
    folder = partial_folder(output)
    assert failed.value.problems == [
        f"{folder}: No space left on device; fix that and give the same command{', it resumes' if resumes else ''}"
    ]
    monkeypatch.undo()
    assert answer_all(output, RECORDS, resumes=resumes) == (4 if resumes else 0)
    assert read_lines(output) == RECORDS


# ---------------------------------------------------------------- the script


@pytest.mark.usefixtures("small_blocks")
def test_a_killed_run_and_shards_give_the_answers_of_one_call(
    saved_runs: SavedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process kills itself in the middle of its third write."""
    path = write_lines(tmp_path / "in.jsonl", RECORDS)
    argv = [str(saved_runs.qa), "--device", "cpu", "--input", str(path)]
    with monkeypatch.context() as patch:
        patch.setattr(requests, "BLOCK_QUESTIONS", 1000)
        assert ask_qa.main([*argv, "--output", str(tmp_path / "whole.jsonl")]) == 0
    whole = read_lines(tmp_path / "whole.jsonl")
    assert [{key: answer[key] for key in RECORDS[0]} for answer in whole] == RECORDS

    output = tmp_path / "killed.jsonl"
    write = AnswerFile.write

    def write_half(answers: AnswerFile, documents: list[dict[str, Any]]) -> None:
        if answers.done < 4:
            write(answers, documents)
            return
        answers.stream.write(json.dumps(documents[0]).encode()[:30])
        answers.stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def run_to_the_kill() -> None:
        monkeypatch.setattr(AnswerFile, "write", write_half)
        ask_qa.main([*argv, "--output", str(output)])

    assert in_child(run_to_the_kill) == signal.SIGKILL
    folder = partial_folder(output)
    assert not (folder / "answers.jsonl").read_bytes().endswith(b"\n")

    refused = run_main(ask_qa.main, *argv, "--output", output, "--max_answer_length", 2)
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        2,
        f"error: --output {output}: {folder} holds answers of an unfinished run with other settings: "
        "max_answer_length 30 then and 2 now; give those of then, another file, or --overwrite",
    )
    other = write_lines(tmp_path / "other.jsonl", RECORDS[:3])
    with monkeypatch.context() as patch:
        patch.setattr(ask_qa, "load_answerer", lambda *_: pytest.fail("a model is loaded"))
        refused = run_main(ask_qa.main, saved_runs.qa, "--input", other, "--output", output, "--n_best", 2)
    assert "with other settings: another --input, --n_best not given then and 2 now; give" in refused.stderr

    done = run_main(ask_qa.main, *argv, "--output", output)
    assert done.stderr.splitlines()[-2] == f"4 questions answered before, in {folder}"
    assert done.stderr.splitlines()[-1].startswith("7 questions answered in ")
    assert read_lines(output) == rounded(whole)
    assert not folder.exists()

    for number in (1, 2, 3):
        assert ask_qa.main([*argv, "--output", str(tmp_path / "part.jsonl"), "--shard", f"{number}/3"]) == 0
    parts = sorted(tmp_path.glob("part-*-of-3.jsonl"))
    assert [*chain.from_iterable(map(read_lines, parts))] == rounded(whole)
    refused = run_main(ask_qa.main, *argv, "--output", tmp_path / "part.jsonl", "--shard", "2/3")
    assert refused.stderr == f"error: --output {parts[1]}: exists; add --overwrite or give another file\n"


@pytest.mark.usefixtures("small_blocks")
def test_parquet_in_and_out(saved_runs: SavedRuns, tmp_path: Path) -> None:
    """The columns are those of the JSON lines. Column "note" has no value in the first block."""
    records = [record | {"note": None if number < 4 else "x"} for number, record in enumerate(RECORDS)]
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), source)
    argv = [str(saved_runs.qa), "--device", "cpu", "--input", str(source), "--n_best", "2", "--output"]
    assert ask_qa.main([*argv, str(output)]) == 0
    assert ask_qa.main([*argv, str(tmp_path / "out.jsonl")]) == 0
    table = pyarrow.parquet.read_table(output)
    assert table.column_names == [*records[0], "answer", "score", "start", "end", "n_best"]
    assert table.to_pylist() == read_lines(tmp_path / "out.jsonl")
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".partial"] == []


def test_a_part_without_questions_has_the_columns_of_answers(saved_runs: SavedRuns, tmp_path: Path) -> None:
    """Readers of all parts take the columns of the first one."""
    path = write_lines(tmp_path / "in.jsonl", RECORDS[:1])
    words = ["--n_best", "2", "--version_2_with_negative", "--output", str(tmp_path / "out.parquet"), "--shard"]
    for shard in ("1/2", "2/2"):
        assert ask_qa.main([str(saved_runs.qa), "--device", "cpu", "--input", str(path), *words, shard]) == 0
    empty, full = (pyarrow.parquet.read_table(tmp_path / f"out-{number}-of-2.parquet") for number in (1, 2))
    assert (len(empty), len(full)) == (0, 1)
    assert empty.schema == full.schema
    answers = ["answer", "score", "start", "end", "no_answer_score", "null_odds", "n_best"]
    assert empty.column_names == [*RECORDS[0], *answers]


def test_fields_of_an_earlier_answer_are_not_carried_over(saved_runs: SavedRuns, tmp_path: Path) -> None:
    """As in the output of a run of SQuAD v2 with --n_best that is the input of another one."""
    argv = [str(saved_runs.qa), "--device", "cpu", "--input"]
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    words = ["--n_best", "2", "--version_2_with_negative", "--output", str(first)]
    assert ask_qa.main([*argv, str(write_lines(tmp_path / "in.jsonl", RECORDS[:1])), *words]) == 0
    assert {"no_answer_score", "null_odds", "n_best"} < {*read_lines(first)[0]}
    assert ask_qa.main([*argv, str(first), "--output", str(second)]) == 0
    assert [*read_lines(second)[0]] == [*RECORDS[0], "answer", "score", "start", "end"]


def test_types_that_a_table_cannot_hold_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [RECORDS[0], RECORDS[1] | {"n": "one"}])
    done = run_main(ask_qa.main, "run", "--input", path, "--output", tmp_path / "out.parquet")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.endswith(", which a Parquet file cannot hold; write JSON lines\n")


def test_objects_without_keys_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [record | {"meta": {}} for record in RECORDS])
    done = run_main(ask_qa.main, "run", "--input", path, "--output", tmp_path / "out.parquet")
    assert done.returncode == 2
    assert "meta" in done.stderr
    assert done.stderr.endswith(", which a Parquet file cannot hold; write JSON lines\n")


def test_answers_replace_fields_of_another_type(saved_runs: SavedRuns, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [record | {"answer": {"text": ["x"]}} for record in RECORDS])
    output = tmp_path / "out.parquet"
    assert ask_qa.main([str(saved_runs.qa), "--device", "cpu", "--input", str(path), "--output", str(output)]) == 0
    assert {type(row["answer"]) for row in pyarrow.parquet.read_table(output).to_pylist()} == {str}


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    """A pipe stays what it is; of a link the file behind it is written."""
    os.mkfifo(tmp_path / "pipe")
    assert output_problems("--output", tmp_path / "pipe", overwrite=True) == [
        f"--output {tmp_path}/pipe: is no regular file; give a file"
    ]
    (tmp_path / "link").symlink_to(tmp_path / "file")
    words = ["run", "--input", "q", "--output", str(tmp_path / "link"), "--overwrite"]
    assert ask_qa.read_options(words).answer_path == tmp_path / "file"


def test_a_part_needs_the_name_of_a_file() -> None:
    problems = problems_of(ask_qa.read_options, ["run", "--input", "q", "--shard", "1/2", "--output", "/"])
    assert problems == ["--output /: is a folder; give a file"]


@pytest.mark.parametrize("words", [[], ["--shard", "1/2"], ["--overwrite"]])
def test_a_dash_is_no_output(words: list[str]) -> None:
    assert problems_of(ask_qa.read_options, ["run", "--input", "q", "--output", "-", *words]) == [
        "--output -: is no file; leave it out, answers go to stdout without it (--json for lines)"
    ]


def test_schema_of_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that come after the first group: new columns, values where there were none, fractions."""
    monkeypatch.setattr(answer_files, "ROWS_PER_GROUP", 1)
    documents: list[dict[str, Any]] = [{"b": None, "a": 1}, {"b": "x", "a": 2.5, "c": [{"d": 1}]}]
    schema = schema_of(iter(documents), "q")
    assert schema.names == ["b", "a", "c"]
    assert list(map(str, schema.types)) == ["string", "double", "list<item: struct<d: int64>>"]


# ---------------------------------------------------------------- standard input and progress


@pytest.mark.usefixtures("small_blocks")
def test_standard_input_is_checked_and_answered_block_by_block(
    saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [json.dumps(record) for record in RECORDS[:4]]
    argv = [saved_runs.qa, "--device", "cpu", "--input", "-", "--json"]
    for last, problem in (
        (b"{", "line 5: not JSON at column 2: Expecting property name enclosed in double quotes"),
        (b"\xff", "not UTF-8 (invalid start byte); send UTF-8"),
        (json.dumps({"question": "?", "context": "x"}).encode(),
         "some records up to line 5 have 'id' and others do not; give every record one, or none"),
    ):  # fmt: skip
        content = "\n".join(lines).encode() + b"\n" + last
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        done = run_main(ask_qa.main, *argv)
        assert (done.returncode, done.stderr) == (2, f"error: standard input: {problem}\n")
        assert done.stdout.count("\n") == (0 if last == b"\xff" else 4)  # so short a stream is decoded at once
    stream = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert [record["id"] for record in read_requests("-").read()] == ["q0", "q1", "q2", "q3"]


@pytest.mark.usefixtures("small_blocks")
def test_a_stopped_run_on_standard_input_does_not_stop_the_next_one(
    saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS[:6]).encode()
    output = tmp_path / "out.jsonl"
    argv = [saved_runs.qa, "--device", "cpu", "--input", "-", "--output", output]
    write = AnswerFile.write

    def write_and_stop(answers: AnswerFile, documents: list[dict[str, Any]]) -> None:
        write(answers, documents)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        patch.setattr(AnswerFile, "write", write_and_stop)
        stopped = run_main(ask_qa.main, *argv)
    assert (stopped.returncode, stopped.stderr) == (128 + signal.SIGINT, "stopped: by SIGINT\n")
    assert [*tmp_path.iterdir()] == []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert run_main(ask_qa.main, *argv, "--n_best", 2).returncode == 0
    assert [len(answer["n_best"]) for answer in read_lines(output)] == [2] * 6


def test_lines_tell_the_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 30.0, 100.0, 130.0, 1000.0])
    with AnswerProgress(5_000, 20_000, has_bar=False, clock=lambda: next(times)) as progress:
        for _ in range(3):
            progress.update(1_000)
        progress.update(12_000)
    assert capsys.readouterr().err == "7,000 of 20,000 questions  20.0 a second  10 min 50 s left\n"
    times = iter([0.0, 100.0])
    AnswerProgress(0, None, has_bar=False, clock=lambda: next(times)).update(1_000)
    assert capsys.readouterr().err == "1,000 questions  10.0 a second\n"
