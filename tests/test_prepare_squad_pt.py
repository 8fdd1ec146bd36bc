"""The preparation script (prepare_squad_pt.py): its output files, counts and rejects, its refusals, published data."""

from __future__ import annotations

import datetime
import errno
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.archives import Pack, archive_formats, write_tar
from support.scripts import SHARED, run_script

from adapter_qa.core import files
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.readers.squad import read_squad
from adapter_qa.data.readers.squad_archive import ARCHIVE_MEMBERS
from prepare_squad_pt import as_json, main, split_from_name, write_outputs

DATA = SHARED / "data"
TRAIN, DEV = ARCHIVE_MEMBERS

CONTEXT = " A lenda &quot;Venite&quot; fica no Ipê, em setembro de 1876. "
CLEAN = 'A lenda "Venite" fica no Ipê, em setembro de 1876.'


def qa(identifier: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    documents = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": identifier, "question": f"Pergunta {identifier}? ", "answers": documents, **more}


def squad(*qas: dict[str, Any], context: str = CONTEXT) -> dict[str, Any]:
    return {"data": [{"title": "S&amp;P", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


QAS = (
    qa("as it was", ("&quot;Venite&quot;", CONTEXT.index("&quot;"))),
    qa("moved", ("fica", 0)),
    qa("loose", ("Setembro de  1876", 0)),
    qa("lost", ("Notre Dame", 0)),
    qa("half lost", ("Notre Dame", 0), ("Ipê", 0)),
    qa("empty", (" ", 0)),
    qa("impossible", is_impossible=True),
    qa("twice", ("fica", 0)),
    qa("broken", ("fica", 0), question=None),
    qa("twice", ("Ipê", 0)),
)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written there, and most tests have their input there as well."""
    monkeypatch.chdir(tmp_path)


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def prepared(folder: Path, stem: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Return the data, rejects and counts that were written."""
    names = (f"pt_{stem}.json", f"pt_{stem}_rejects.json", f"pt_{stem}_counts.json")
    data, rejects, counts = (json.loads((folder / name).read_text(encoding="utf-8")) for name in names)
    assert data.keys() == {"data"}
    return data["data"], rejects, counts


def problems_of(*arguments: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.problems


# --- one file ------------------------------------------------------------------------------------------------


def test_training_data(tmp_path: Path) -> None:
    assert main([str(write(tmp_path / "squad.json", squad(*QAS)))]) == 0
    data, rejects, counts = prepared(tmp_path, "squad")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("pt_squad.json", "pt_squad_counts.json", "pt_squad_rejects.json", "squad.json")
    ]
    assert [(record["id"], record["answers"]) for record in data] == [
        ("as it was", {"answer_start": [8], "text": ['"Venite"']}),
        ("moved", {"answer_start": [17], "text": ["fica"]}),
        ("loose", {"answer_start": [33], "text": ["setembro de 1876"]}),
        ("half lost", {"answer_start": [25], "text": ["Ipê"]}),
        ("impossible", {"answer_start": [], "text": []}),
        ("twice", {"answer_start": [25], "text": ["Ipê"]}),
    ]
    assert all(record.keys() == {"id", "title", "context", "question", "answers"} for record in data)
    assert {record["context"] for record in data} == {CLEAN}
    assert (data[0]["title"], data[0]["question"]) == ("S&P", "Pergunta as it was?")
    assert [(entry["reason"], entry["detail"], entry["kept"]) for entry in rejects] == [
        ("answer not in the context", "'Notre Dame'", False),
        ("answer not in the context", "'Notre Dame'", True),
        ("empty answer", "''", False),
        ("repeated id", "that of data[0].paragraphs[0].qas[9], which is kept", False),
        (
            "bad record",
            "data[0].paragraphs[0].qas[8] (id 'broken'): 'question' is null; it must be text",
            False,
        ),
    ]
    assert rejects[0]["where"] == "data[0].paragraphs[0].qas[3]"
    assert rejects[0]["record"] == QAS[3] | {"title": "S&amp;P", "context": CONTEXT}
    assert counts == {
        "input": "squad.json",
        "split": "train",
        "read": 10,
        "kept": 6,
        "kept_unanswerable": 1,
        "duplicates": 1,
        "rejected": {"answer not in the context": 1, "bad record": 1, "empty answer": 1},
        "answers": {"as it was": 1, "moved": 3, "loose": 1, "not found": 2, "empty": 1},
        "entities_unescaped": 4,  # two in the context, which is cleaned once, and two in an answer
    }


def test_evaluation_data_keeps_unaligned_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "squad-dev.json", squad(*QAS))
    main([str(path)])
    data, rejects, counts = prepared(tmp_path, "squad-dev")
    answers = {record["id"]: record["answers"] for record in data}
    assert answers["lost"] == {"answer_start": [-1], "text": ["Notre Dame"]}
    assert answers["half lost"] == {"answer_start": [-1, 25], "text": ["Notre Dame", "Ipê"]}
    assert "empty" not in answers
    assert [entry["kept"] for entry in rejects] == [True, True, False, False, False]
    assert (counts["split"], counts["kept"], counts["answers"]["not found"]) == ("eval", 7, 2)
    main([str(tmp_path / "pt_squad-dev.json")])  # start -1 is read and kept
    assert prepared(tmp_path, "pt_squad-dev")[0] == data
    main([str(path), "--split", "train", "--overwrite"])
    assert prepared(tmp_path, "squad-dev")[2]["kept"] == 6


@pytest.mark.parametrize(
    "name",
    [
        *("squad-dev-v1.1.json", "dev-v2.0.json", "dev.json", "xquad.test.json", "test-context-pt-question-pt.json"),
        *("Validacao.json", "valida\u00e7\u00e3o.json", "validac\u0327a\u0303o.json", "TEST.jsonl", "squad_eval2.json"),
        *("devset.json", "testv2.json", "faquad_teste.csv", "dev2.json.gz", "validation-00000-of-00001.parquet"),
    ],
)
def test_names_that_mean_evaluation(name: str) -> None:
    assert split_from_name(name) == "eval"


@pytest.mark.parametrize(
    "name",
    [
        *("squad-train-v1.1.json", "train-v1.1.json", "trainv2.json", "squad_v2_pt.json", "squad_v1_pt_sample.json"),
        *("faquad_train.json", "xquad_en.json", "in.json", "latest_train.json", "medieval.json", "devices.json"),
    ],
)
def test_names_that_mean_training(name: str) -> None:
    assert split_from_name(name) == "train"


def test_the_last_usable_question_of_an_id_is_kept(tmp_path: Path) -> None:
    same = [qa("1", ("fica", 0)), qa("1", ("Ipê", 0)), qa("2", ("fica", 0)), qa("1", ("lost", 0)), qa("1", (" ", 0))]
    main([str(write(tmp_path / "squad.json", squad(*same)))])
    data, rejects, counts = prepared(tmp_path, "squad")
    assert [(record["id"], record["answers"]["text"]) for record in data] == [("1", ["Ipê"]), ("2", ["fica"])]
    assert [(entry["where"], entry["reason"], entry["detail"]) for entry in rejects] == [
        ("data[0].paragraphs[0].qas[0]", "repeated id", "that of data[0].paragraphs[0].qas[1], which is kept"),
        ("data[0].paragraphs[0].qas[3]", "answer not in the context", "'lost'"),
        ("data[0].paragraphs[0].qas[4]", "empty answer", "''"),
    ]
    assert (counts["read"], counts["kept"], counts["duplicates"]) == (5, 2, 1)
    assert counts["rejected"] == {"answer not in the context": 1, "empty answer": 1}


def test_questions_that_are_empty_after_cleaning_are_rejected(tmp_path: Path) -> None:
    emptied = squad(qa("no question", ("x", 0), question="&nbsp;"), qa("fine", ("x", 0)), context="x")
    emptied["data"] += squad(qa("no context"), context="&#32;")["data"]
    main([str(write(tmp_path / "squad.json", emptied))])
    data, rejects, _ = prepared(tmp_path, "squad")
    assert [record["id"] for record in data] == ["fine"]
    assert [(entry["record"]["id"], entry["reason"]) for entry in rejects] == [
        ("no question", "empty question"),
        ("no context", "empty context"),
    ]


def test_a_lone_surrogate_is_written_unchanged_to_the_rejects(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad(qa("fine", ("x", 0)), qa("\ud83d", ("x", 0)), context="x")))
    main([str(path)])
    assert prepared(tmp_path, "squad")[1][0]["record"]["id"] == "\ud83d"


def test_output_is_json_for_csv_input(tmp_path: Path) -> None:
    path = tmp_path / "perguntas.csv"
    path.write_text("id,question,context,answers\n1,Onde?,No Sul.,\"{'text': ['Sul'], 'answer_start': [0]}\"\n2,?\n")
    main([str(path), "--output_dir", str(tmp_path / "new" / "folder")])
    data, rejects, _ = prepared(tmp_path / "new" / "folder", "perguntas")
    assert data[0]["answers"] == {"answer_start": [3], "text": ["Sul"]}
    assert rejects[0]["reason"] == "bad record"


def test_a_file_without_usable_questions_is_refused(tmp_path: Path) -> None:
    (line,) = problems_of(write(tmp_path / "squad.json", squad(QAS[3])))
    assert line.startswith("squad.json: no question can be used; the reasons are in ")
    assert sorted(path.name for path in tmp_path.glob("pt_*")) == [*("pt_squad_counts.json", "pt_squad_rejects.json")]


def test_existing_files_are_refused_without_overwrite(tmp_path: Path) -> None:
    path = write(tmp_path / "squad.json", squad(*QAS))
    main([str(path)])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (line,) = problems_of(path)
    assert line.endswith("pt_squad_counts.json: exists; add --overwrite or give another --output_dir")
    (tmp_path / "pt_squad.json").unlink()
    problems_of(path)  # the other two files still exist
    main([str(path), "--overwrite"])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write(tmp_path / "pt_squad.json", "old")

    def run_out_of_space(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "fsync_path", run_out_of_space)
    with pytest.raises(RunError) as caught:
        write_outputs({tmp_path / "pt_squad_rejects.json": as_json([]), target: as_json({"data": []})})
    assert caught.value.problems == [f"{tmp_path}: cannot be written: No space left on device"]
    assert json.loads(target.read_text()) == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_bad_input(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "none.json") == [f"{tmp_path / 'none.json'}: no such file"]
    assert "allowed: .json, .jsonl, .ndjson, .csv, .tsv, .parquet" in problems_of(write(tmp_path / "squad.txt", []))[0]
    (tmp_path / "cut.json").write_text('{"data": [')
    assert "not JSON at line 1" in problems_of(tmp_path / "cut.json")[0]
    write(tmp_path / "file", "in the way")
    (line,) = problems_of(write(tmp_path / "squad.json", squad(*QAS)), "--output_dir", tmp_path / "file")
    assert "cannot be written: " in line


# --- answers without a start, and other forms ----------------------------------------------------------------


SHORT = "Recife, capital de Pernambuco, é a maior cidade de Pernambuco. Em 2010 havia 10 distritos."


def answers_of(tmp_path: Path, answers: object, **more: Any) -> tuple[Any, dict[str, Any]]:
    """Return the prepared answers of one record with the answers as given, and the counts."""
    record = {"id": "1", "question": "?", "context": SHORT, "answers": answers, **more}
    path = write(tmp_path / "in.json", [record])
    main([str(path), "--overwrite"])
    ((prepared_record,), rejects, counts) = prepared(tmp_path, "in")
    assert rejects == []
    return prepared_record["answers"], counts


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "maior cidade"}],
        [{"text": "maior cidade", "answer_start": None}],
        [{"text": "maior cidade", "answer_start": float("nan")}],
        [{"text": "maior cidade", "answer_start": ""}],
        [{"text": "maior cidade", "answer_start": "no meio"}],
        [{"text": "maior cidade", "answer_start": 2**40}],
        {"text": ["maior cidade"]},
        {"text": ["maior cidade"], "answer_start": []},
        {"text": "maior cidade"},
        ["maior cidade"],
        "maior cidade",
        " maior cidade ",
    ],
    ids=json.dumps,
)
def test_answers_without_a_start_are_searched(tmp_path: Path, answers: object) -> None:
    found, counts = answers_of(tmp_path, answers)
    assert found == {"answer_start": [SHORT.index("maior cidade")], "text": ["maior cidade"]}
    assert counts["answers"]["moved"] == counts["answers_without_start"] == 1
    assert counts["of_these_ambiguous"] == 0


@pytest.mark.parametrize(("text", "start"), [("Pernambuco", SHORT.index("Pernambuco")), ("a", SHORT.index(" a ") + 1)])
def test_the_first_of_several_occurrences_is_taken_and_counted(tmp_path: Path, text: str, start: int) -> None:
    found, counts = answers_of(tmp_path, text)
    assert found == {"answer_start": [start], "text": [text]}
    assert counts["of_these_ambiguous"] == (1 if text == "Pernambuco" else 0)


def test_a_search_prefers_whole_words(tmp_path: Path) -> None:
    assert answers_of(tmp_path, "10")[0]["answer_start"] == [SHORT.index(" 10 ") + 1]
    assert answers_of(tmp_path, "dist")[0]["answer_start"] == [SHORT.index("dist")]
    assert answers_of(tmp_path, "é a MAIOR")[0] == {"answer_start": [SHORT.index("é a maior")], "text": ["é a maior"]}


@pytest.mark.parametrize("start", [51, 51.0, "51", " 51 "], ids=repr)
def test_a_start_in_another_form_is_used(tmp_path: Path, start: object) -> None:
    """The second occurrence stands there."""
    for answers in ([{"text": "Pernambuco", "answer_start": start}], {"text": "Pernambuco", "answer_start": start}):
        found, counts = answers_of(tmp_path, answers)
        assert found == {"answer_start": [51], "text": ["Pernambuco"]}
        assert counts["answers"]["as it was"] == 1
        assert "answers_without_start" not in counts
    assert answers_of(tmp_path, "Pernambuco", answer_start=start)[0]["answer_start"] == [51]


def test_names_of_columns_and_compressed_input(tmp_path: Path) -> None:
    record = {"qid": 7, "pergunta": "?", "texto": SHORT, "resposta": "Recife", "question": "x"}
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    names = {"id": "qid", "question": "pergunta", "context": "texto", "answer": "resposta"}
    assert main([str(path), *(word for name, column in names.items() for word in (f"--{name}_column", column))]) == 0
    (prepared_record,), _, counts = prepared(tmp_path, "in")
    assert prepared_record == {
        "id": "7", "title": "", "context": SHORT, "question": "?", "answers": {"answer_start": [0], "text": ["Recife"]}
    }  # fmt: skip
    assert counts["input"] == "in.jsonl.gz"
    assert problems_of(path, "--overwrite") == [
        "in.jsonl.gz: no question can be used; the reasons are in pt_in_rejects.json",
        "in.jsonl.gz: line 1 has no id, context, answers, but qid, pergunta, texto, resposta; name the right ones with "
        "--id_column, --context_column, --answer_column",
    ]


def test_rows_of_a_table_are_written_as_rejects(tmp_path: Path) -> None:
    row = {"id": None, "question": "?", "context": SHORT, "answers": "Recife", "day": datetime.date(2026, 1, 2)}
    path = tmp_path / "in.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, row | {"id": "1"}]), path)
    assert main([str(path)]) == 0
    _, rejects, _ = prepared(tmp_path, "in")
    assert [entry["record"]["day"] for entry in rejects] == ["2026-01-02"]


# --- archives ------------------------------------------------------------------------------------------------


CONTENT = json.dumps(squad(*QAS)).encode()


@archive_formats
def test_archive(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / name, [("pt/leiame.txt", b"?"), (f"pt/{DEV}", CONTENT), (f"pt/{TRAIN}", CONTENT)])
    assert main([str(archive), "--output_dir", str(tmp_path / "out")]) == 0
    assert prepared(tmp_path / "out", "squad-train-v1.1")[2]["kept"] == 6
    assert prepared(tmp_path / "out", "squad-dev-v1.1")[2]["kept"] == 7


@archive_formats
def test_paths_inside_an_archive_lead_nowhere(tmp_path: Path, pack: Pack, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    members = [(f"../{TRAIN}", CONTENT), (f"{tmp_path}/{DEV}", CONTENT), ("../evil.json", b"[]")]
    main([str(pack(folder / name, members)), "--output_dir", str(folder / "out")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, "out"])
    assert len(list((folder / "out").iterdir())) == 6


def test_nothing_is_written_when_one_member_is_broken(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "squad.tgz", [(TRAIN, CONTENT), (DEV, b'{"data": [')])
    assert problems_of(archive)[0].startswith(f"{DEV}: not JSON at line 1")
    assert list(tmp_path.iterdir()) == [archive]


# --- as a command --------------------------------------------------------------------------------------------


def test_command_line(tmp_path: Path) -> None:
    path = write(tmp_path / "squad.json", squad(*QAS))
    process = run_script("prepare_squad_pt.py", path, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    table = dict(line.rsplit(maxsplit=1) for line in process.stdout.splitlines() if "  " in line)
    assert (table["read"], table["kept"], table["  loose"]) == ("10", "6", "1")
    again = run_script("prepare_squad_pt.py", path, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.endswith(": exists; add --overwrite or give another --output_dir\n")
    assert again.stderr.count("\n") == 1


def test_without_a_folder_files_go_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, here = tmp_path / "elsewhere", tmp_path / "here"
    source.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    path = write(source / "squad.json", squad(*QAS))
    before = path.read_bytes()
    main([str(path)])
    assert [file.name for file in source.iterdir()] == ["squad.json"]
    names = ["pt_squad.json", "pt_squad_counts.json", "pt_squad_rejects.json"]
    assert sorted(file.name for file in here.iterdir()) == names
    assert f"\nwritten: {here / 'pt_squad.json'}\n" in capsys.readouterr().out
    (here / "pt_squad_counts.json").write_text("mine")
    (problem,) = problems_of(path)
    assert problem.endswith(": exists; add --overwrite or give another --output_dir")
    assert (here / "pt_squad_counts.json").read_text() == "mine"
    assert path.read_bytes() == before
    main([str(path), "--output_dir", "data"])
    assert "\nwritten: data/pt_squad.json\n" in capsys.readouterr().out


def test_a_link_to_the_input_is_replaced_not_written_through(tmp_path: Path) -> None:
    path = write(tmp_path / "squad.json", squad(*QAS))
    before = path.read_bytes()
    (tmp_path / "pt_squad.json").symlink_to(path)
    assert problems_of(path)
    main([str(path), "--overwrite"])
    assert path.read_bytes() == before
    assert not (tmp_path / "pt_squad.json").is_symlink()


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.count("\n  prepare_squad_pt.py ") == 2


# --- published data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept", "unanswerable", "rejected", "outcomes"),
    [
        ("squad_v1_pt_sample", 1988, 0, {"answer not in the context": 802}, (1788, 0, 200, 802, 0)),
        ("squad_v2_pt", 9486, 4692, {"empty answer": 92}, (4658, 136, 0, 0, 92)),
        ("faquad_train", 837, 0, {}, (2481, 30, 0, 0, 0)),
        ("xquad_en", 1190, 0, {}, (1190, 0, 0, 0, 0)),
    ],
)
def test_published_files(
    tmp_path: Path, name: str, kept: int, unanswerable: int, rejected: dict[str, int], outcomes: tuple[int, ...]
) -> None:
    path = DATA / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    main([str(path), "--output_dir", str(tmp_path)])
    data, rejects, counts = prepared(tmp_path, name)
    assert (counts["kept"], counts["kept_unanswerable"], counts["rejected"]) == (kept, unanswerable, rejected)
    assert tuple(counts["answers"].values()) == outcomes
    assert len(data) == kept
    assert len(rejects) == sum(rejected.values()) == counts["read"] - kept
    questions = read_squad(tmp_path / f"pt_{name}.json", need_answers=True)
    assert all(is_aligned(question, k) for question in questions for k in range(len(question.answer_texts)))
    assert_clean_and_in_order(read_squad(path, need_answers=True), questions)

    # Preparing prepared data changes nothing.
    main([str(tmp_path / f"pt_{name}.json")])
    first, second = ((tmp_path / f"{prefix}_{name}.json").read_bytes() for prefix in ("pt", "pt_pt"))
    assert first == second
    assert prepared(tmp_path, f"pt_{name}")[1] == []


def assert_clean_and_in_order(before: list[Question], after: list[Question]) -> None:
    kept = {question.id for question in after}
    assert not any(entity in q.context + q.question for q in after for entity in ("&quot;", "&#39;", "&amp;"))
    assert [question.id for question in before if question.id in kept] == [question.id for question in after]
