"""Cleaning and realignment (adapter_qa/data/alignment.py), on any Unicode and against brute force."""

from __future__ import annotations

import html
import time
import unicodedata
from html.entities import html5

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from adapter_qa.data.alignment import UNALIGNED, Passage, align_answer, clean, fold, realign
from adapter_qa.data.squad import Question, is_aligned

# Composed and decomposed accents, capital and small, typographic signs, spaces, emoji with joiner and selector,
# zero-width and right-to-left characters, letters whose case or decomposition has several, and pieces of entities.
PIECES = [
    *("é", "e\u0301", "É", "E\u0301", "e", "E", "ç", "c\u0327", "ã", "İ", "ß", "ẞ", "ς", "Σ", "ﬁ", "각", "ᾳ"),
    *("'", "’", '"', "“", "”", "-", "–", "—", " ", "  ", "\n", "\t", "\u00a0", "\u2003"),
    *("🎓", "👩\u200d🔬", "❤\ufe0f", "\u200b", "\u200f", "\ufeff", "שָׁלוֹם", "سَلام", "\u0301", "\u0345"),
    *("&", "&amp;", "&quot;", "&#39;", "&#x26;", "&nbsp;", "&amp;quot;", "quot;", "amp;", "#39;", ";", "&para", "a"),
]
texts = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)
starts = st.integers(-3, 40)


def brute_clean(raw: str) -> str:
    """Entities that end in a semicolon, the leftmost complete one first, until there is none."""
    while True:
        for stop, character in enumerate(raw):
            start = raw.rfind("&", 0, stop)
            entity = raw[start : stop + 1]
            if character != ";" or start < 0:
                continue
            body = entity[1:-1]
            is_decimal = body[:1] == "#" and body[1:].isascii() and body[1:].isdigit() and len(body) <= 8
            digits = "0123456789abcdefABCDEF"
            is_hex = body[:2] in ("#x", "#X") and len(body) in range(3, 9) and all(d in digits for d in body[2:])
            if is_decimal or is_hex or entity[1:] in html5:
                raw = raw[:start] + html.unescape(entity) + raw[stop + 1 :]
                break
        else:
            return raw.strip()


# --- cleaning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text", "entities"),
    [
        ("", "", 0),
        (" \n a b\u00a0", "a b", 0),
        ("&quot;a&quot; &amp; b&#39;s &#x2014; c", '"a" & b\'s — c', 5),
        ("&amp;quot;", '"', 2),
        ("&amp;amp;amp;", "&", 3),
        ("&&num;39;", "'", 2),
        ("&quot&semi;", '"', 2),
        ("&nbsp;a&#32;", "a", 2),
        ("&fjlig;ord", "fjord", 1),
        ("caf&eacute;; x", "café; x", 1),
        ("P&D; a&b c;", "P&D; a&b c;", 0),
        ("Arte &para todos; &copy 2020", "Arte &para todos; &copy 2020", 0),  # html.unescape would take both
        ("&notit; &#; &#x; &#12345678;", "&notit; &#; &#x; &#12345678;", 0),
        ("&#1;&#0;&#xD800;", "\ufffd\ufffd", 3),  # what HTML says about characters that are none
    ],
)
def test_clean(raw: str, text: str, entities: int) -> None:
    cleaned = clean(raw)
    assert (cleaned.text, cleaned.entities) == (text, entities)


@given(texts)
@example("&&#97;mp;quot&semi;")
def test_clean_against_brute_force(raw: str) -> None:
    assert clean(raw).text == brute_clean(raw)


@given(texts)
def test_clean_keeps_track_and_settles(raw: str) -> None:
    cleaned = clean(raw)
    assert len(cleaned.origin) == len(cleaned.text)
    assert list(cleaned.origin) == sorted(cleaned.origin)
    # Either the character itself, or one that an entity starting there stands for.
    assert all(raw[at] in (character, "&") for character, at in zip(cleaned.text, cleaned.origin, strict=True))
    again = clean(cleaned.text)
    assert (again.text, again.entities) == (cleaned.text, 0)
    cleaned.text.encode("utf-8")


# --- folding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("São JOÃO", "sao joao"),
        ("Sa\u0303o", "sao"),
        ("“a” ‘b’ «c»", '"a" \'b\' "c"'),
        ("1990–2000 — fim", "1990-2000 - fim"),
        ("a \t\u00a0\n b", "a b"),
        ("a \u0301 b", "a b"),  # the mark goes first, so that one space remains
        ("ΣΊΣΥΦΟΣ Σίσυφος", "σισυφοσ σισυφοσ"),
        ("Straße", "straße"),  # "ss" would be two characters
        ("각", "각"),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text).text == folded


@given(texts)
def test_fold_keeps_track_and_settles(text: str) -> None:
    folded = fold(text)
    assert len(folded.origin) == len(folded.text)
    assert all(fold(text[at]).text == character for character, at in zip(folded.text, folded.origin, strict=True))
    assert fold(folded.text).text == folded.text


@given(st.text(st.characters(max_codepoint=0x17F)))
def test_latin_text_folds_alike_composed_and_decomposed(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert fold(composed).text == fold(decomposed).text


# --- one answer ----------------------------------------------------------------------------------------------


def distance_of_nearest(text: str, piece: str, near: int) -> int | None:
    """Looks at every place; the left one of two as near."""
    places = [at for at in range(len(text)) if text.startswith(piece, at)]
    return min(places, key=lambda at: (abs(at - near), at), default=None)


@settings(max_examples=500, deadline=None)
@given(texts, texts, starts)
def test_any_answer_in_any_context(raw_context: str, raw_answer: str, raw_start: int) -> None:
    passage = Passage(raw_context)
    found = align_answer(passage, raw_answer, raw_start)
    answer = clean(raw_answer).text
    if not answer:
        assert (found.start, found.outcome) == (UNALIGNED, "empty")
    elif answer in passage.text:
        assert found.outcome in ("as it was", "moved") and found.text == answer
    elif fold(answer).text.strip() and fold(answer).text.strip() in fold(passage.text).text:
        assert found.outcome == "loose"
        assert fold(found.text).text.strip() == fold(answer).text.strip()
        assert found.text == found.text.strip()
    else:
        assert (found.text, found.start, found.outcome) == (answer, UNALIGNED, "not found")
    if found.start != UNALIGNED:
        assert found.start >= 0 and found.text
        assert passage.text[found.start : found.start + len(found.text)] == found.text
        again = align_answer(Passage(passage.text), found.text, found.start)
        assert (again.text, again.start, again.outcome) == (found.text, found.start, "as it was")


@settings(max_examples=300, deadline=None)
@given(st.text("ab ", min_size=1, max_size=30), st.text("ab", min_size=1, max_size=3), starts)
def test_exact_match_is_the_nearest(context: str, answer: str, start: int) -> None:
    assume(context.strip())
    near = max(start - (len(context) - len(context.lstrip())), 0)
    passage = Passage(context)
    near = min(near, len(passage.text))
    expected = distance_of_nearest(passage.text, answer, near)
    found = align_answer(passage, answer, start)
    assert found.start == (UNALIGNED if expected is None else expected)


@settings(max_examples=300, deadline=None)
@given(st.text("áà b", min_size=1, max_size=30), st.text("âb", min_size=1, max_size=3), st.integers(0, 30))
def test_loose_match_is_the_nearest(context: str, answer: str, start: int) -> None:
    passage = Passage(context)
    assume(passage.text == context and "  " not in context and "â" in answer)
    expected = distance_of_nearest(fold(context).text, fold(answer).text, min(start, len(context)))
    found = align_answer(passage, answer, start)
    assert found.start == (UNALIGNED if expected is None else expected)


@settings(deadline=None)
@given(texts, st.data())
def test_a_span_of_the_raw_context_stays_where_it_is(raw: str, data: st.DataObject) -> None:
    """Whatever cleaning does around it, unless the span cuts through an entity."""
    start = data.draw(st.integers(0, len(raw)))
    answer = raw[start : data.draw(st.integers(start, len(raw)))]
    passage, cleaned = Passage(raw), clean(answer)
    apart = clean(raw[:start] + "\x00" + answer + "\x00" + raw[start + len(answer) :]).text
    assume(cleaned.text and apart.replace("\x00", "").strip() == passage.text and apart.count("\x00") == 2)
    found = align_answer(passage, answer, start)
    assert (found.text, found.outcome) == (cleaned.text, "as it was")
    assert passage.text[: found.start].strip() == apart[: apart.index("\x00")].strip()


@pytest.mark.parametrize(
    ("context", "answer", "start", "expected"),
    [
        ("Fica em Campo Grande.", "Campo Grande", 8, ("Campo Grande", 8, "as it was")),
        ("Fica em Campo Grande.", "Campo Grande", 0, ("Campo Grande", 8, "moved")),
        ("  Fica em Campo Grande.", " Campo Grande", 9, ("Campo Grande", 8, "as it was")),
        ("&quot;Sul&quot; ou &quot;Sul&quot;", "&quot;Sul&quot;", 19, ('"Sul"', 9, "as it was")),
        ("&quot;Sul&quot; ou &quot;Sul&quot;", "Sul", 25, ("Sul", 10, "as it was")),
        ("&quot;Sul&quot; ou &quot;Sul&quot;", '"Sul"', 20, ('"Sul"', 9, "moved")),
        ("em setembro de 1876, o", "Setembro de 1876", 0, ("setembro de 1876", 3, "loose")),
        ("o 'João – o Moço' diz", "‘joao - O moco’", 0, ("'João – o Moço'", 2, "loose")),
        ("diz  que\nsim", "Que sim", 0, ("que\nsim", 5, "loose")),
        ("o cafe\u0301 e o chá", "CAFÉ", 0, ("cafe\u0301", 2, "loose")),  # its accent comes along
        ("toma cafe\u0301", "CAFÉ", 0, ("cafe\u0301", 5, "loose")),
        ("Sul sul", "SUL", 6, ("sul", 4, "loose")),
        ("sul ou Sul", "Sul", 0, ("Sul", 7, "moved")),  # exact goes before near
        ("e\u0301" * 4 + " Sul x sul", "SUL", 9, ("Sul", 9, "loose")),  # near is counted without the marks
        ("o sul", "\u0301 Sul", 0, ("sul", 2, "loose")),
        ("Straße", "STRASSE", 0, ("STRASSE", UNALIGNED, "not found")),
        ("não está aqui", "em lugar nenhum", 4, ("em lugar nenhum", UNALIGNED, "not found")),
        ("abc", "\u0301", 0, ("\u0301", UNALIGNED, "not found")),
        ("abc", " &nbsp; ", 0, ("", UNALIGNED, "empty")),
        ("abc", "c", 10**30, ("c", 2, "moved")),
    ],
)
def test_examples(context: str, answer: str, start: int, expected: tuple[str, int, str]) -> None:
    found = align_answer(Passage(context), answer, start)
    assert (found.text, found.start, found.outcome) == expected


# --- whole questions -----------------------------------------------------------------------------------------


def test_realign_keeps_what_serves() -> None:
    raw = Question("1", " &quot;Onde&quot;? ", "Em  Sa\u0303o Paulo ", ("são paulo", "Rio", " "), (0, 0, 0), "S&amp;P")
    passage = Passage(raw.context)
    for_training, alignments = realign(raw, passage, keep_unaligned=False)
    assert for_training == Question("1", '"Onde"?', "Em  Sa\u0303o Paulo", ("Sa\u0303o Paulo",), (4,), "S&P")
    assert is_aligned(for_training)
    assert [alignment.outcome for alignment in alignments] == ["loose", "not found", "empty"]
    for_evaluation, _ = realign(raw, passage, keep_unaligned=True)
    assert for_evaluation.answer_texts == ("Sa\u0303o Paulo", "Rio")
    assert for_evaluation.answer_starts == (4, UNALIGNED)
    assert not is_aligned(for_evaluation, 1)


def test_time_grows_with_the_text_not_its_square() -> None:
    """A megabyte of what invites quadratic behaviour: nested entities, spaces, marks, near misses."""
    begin = time.process_time()
    for unit in ("&amp;", "amp;", "&#38;", "a ", "a\u0301"):
        passage = Passage("&" + unit * (1_000_000 // len(unit)))
        align_answer(passage, "Nada disso", 500_000)
    assert time.process_time() - begin < 20  # about 3 s where this was written; hours if quadratic
