"""Schemes of entity labels (adapter_qa/data/label_schemes.py).

Oracles: labels written from entities, a scheme at a time; the entities that seqeval reads in strict mode.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities, Token

from adapter_qa.data.label_schemes import LABEL, begin_entities, to_iob2

# Prefixes of the first, a middle, the last and the only word of an entity.
PREFIXES = {"IOB2": "BIIB", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEW": "BMEW"}
NAMES = {"IOB2": "IOB2", "IOB1": "IOB1", "BIOES": "BIOES", "BILOU": "BILOU", "BMES": "BMES", "BMEW": "BMES"}
SEQEVAL: dict[str, type[Token]] = {"IOB2": IOB2, "BIOES": IOBES, "BILOU": BILOU, "IOB1": IOB1}
Words = list[tuple[str, int]]  # the type of each word's entity, "" for none, and the number of the entity


@st.composite
def sentence(draw: st.DrawFn) -> Words:
    words: Words = []
    for number in range(draw(st.integers(0, 4))):
        words += [(draw(st.sampled_from(["", "PER", "B-I"])), number)] * draw(st.integers(1, 3))
    return words


def written(words: Words, scheme: str) -> list[str]:
    """Return labels of a scheme, written from entities."""
    labels = []
    for index, (entity, number) in enumerate(words):
        first = index == 0 or words[index - 1][1] != number
        last = index == len(words) - 1 or words[index + 1][1] != number
        if scheme == "IOB1":
            touches = first and index > 0 and words[index - 1][0] == entity
            prefix = "B" if touches else "I"
        else:
            begin, middle, end, single = list(PREFIXES[scheme])
            prefix = single if first and last else begin if first else end if last else middle
        labels.append(f"{prefix}-{entity}" if entity else "O")
    return labels


@pytest.mark.parametrize("scheme", [*PREFIXES, "IOB1"])
@given(st.lists(sentence(), max_size=3))
def test_every_scheme_becomes_iob2(scheme: str, sentences: list[Words]) -> None:
    labels = [written(words, scheme) for words in sentences]
    converted = to_iob2(labels)
    assert converted.problems == []
    assert converted.labels == [tuple(written(words, "IOB2")) for words in sentences]
    used = {label[0] for row in labels for label in row} - set("BIO")
    distinct = used & set("MWLU")  # BMES and BMEW without them look like BIOES
    is_iob1 = scheme == "IOB1" and any(entity for words in sentences for entity, _ in words)
    assert converted.scheme == (NAMES[scheme] if is_iob1 or distinct else "BIOES" if used else "IOB2")


@given(
    st.lists(st.lists(st.sampled_from(["O", *[f"{p}-{t}" for p in "BIESLU" for t in "XY"]]), max_size=5), max_size=2)
)
def test_valid_labels_have_the_entities_that_seqeval_reads(labels: list[list[str]]) -> None:
    converted = to_iob2(labels)
    prefixes = {label[0] for row in labels for label in row}
    assume(not converted.problems and prefixes <= {*converted.scheme, "O"})  # seqeval knows no mixture such as E, U
    before = Entities(labels, SEQEVAL[converted.scheme])
    after = Entities([list(row) for row in converted.labels], IOB2)
    assert [[entity.to_tuple()[1:] for entity in row] for row in before.entities] == [
        [entity.to_tuple()[1:] for entity in row] for row in after.entities
    ]


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=8))
def test_predicted_labels_become_iob2_with_the_same_entities(labels: list[str]) -> None:
    converted = begin_entities(labels)
    assert to_iob2([converted]) == ("IOB2", [converted], [])
    assert get_entities(list(converted)) == get_entities(labels)


def test_iob2_wins_where_it_is_valid() -> None:
    labels = [("B-A", "I-A", "B-A"), ("O",), ()]
    assert to_iob2(labels) == ("IOB2", labels, [])
    assert to_iob2([]) == ("IOB2", [], [])


def test_one_scheme_holds_for_all_sentences() -> None:
    assert to_iob2([["B-A", "I-A"], ["I-A"]]).problems == [
        (1, 0, "label I-A after O; in IOB2 an entity begins with B-A")
    ]
    assert to_iob2([["B-A", "I-A"], ["S-A"]]).problems == [
        (0, 1, "label I-A before O; in BIOES (as S-A) an entity ends with E- or S-")
    ]


@pytest.mark.parametrize(
    ("labels", "index", "problem"),
    [
        (["O", "B-A", "I-B"], 2, "label I-B after B-A; in IOB2 an entity begins with B-B"),
        (["I-A", "O", "B-A"], 0, "label I-A after O; in IOB2 an entity begins with B-A"),
        (["E-A"], 0, "label E-A after O; in BIOES (as E-A) a longer entity begins with B-"),
        (["S-A", "I-A", "E-A"], 1, "label I-A after S-A; in BIOES (as S-A) a longer entity begins with B-"),
        (["B-A", "L-B"], 0, "label B-A before L-B; in BILOU (as L-B) an entity ends with L- or U-"),
        (["U-A", "B-A"], 1, "label B-A before O; in BILOU (as U-A) an entity ends with L- or U-"),
        (["B-A", "E-A", "L-A"], 2, "label L-A in a file that has E- for the same; one scheme has one of them"),
        (["U-A", "S-A"], 0, "label U-A in a file that has S- for the same; one scheme has one of them"),
    ],
)
def test_labels_in_the_wrong_place(labels: list[str], index: int, problem: str) -> None:
    assert to_iob2([["O"], labels]).problems == [(1, index, problem)]


@pytest.mark.parametrize("label", ["O", "B-PER", "I-a.b/c:d&e+f-g_h", "E-PESSOA-FÍSICA", "W-1"])
def test_labels(label: str) -> None:
    assert LABEL.fullmatch(label)


@pytest.mark.parametrize("label", ["", "o", "b-PER", "B_PER", "PER", "B-", "O-PER", "B-A B", "B-<b>", f"B-{'x' * 101}"])
def test_what_is_no_label(label: str) -> None:
    assert not LABEL.fullmatch(label)
