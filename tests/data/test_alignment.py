"""Cleaning and alignment (adapter_qa/data/alignment.py) on any Unicode text, against brute force."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from reference.brute_alignment import brute_clean, nearest_occurrence

from adapter_qa.data.alignment import (
    AlignmentContext,
    MatchType,
    align_answer,
    align_question,
    clean,
    normalize,
)
from adapter_qa.data.questions import NO_START, Question, is_aligned

# Composed and decomposed accents, capital and small, typographic signs, spaces, emoji with joiner and selector,
# zero-width and right-to-left characters, letters that case folding or decomposition makes several, parts of entities.
PIECES = [
    *("é", "e\u0301", "É", "E\u0301", "e", "E", "ç", "c\u0327", "ã", "İ", "ß", "ẞ", "ς", "Σ", "ﬁ", "각", "ᾳ"),
    *("'", "’", '"', "“", "”", "-", "–", "—", " ", "  ", "\n", "\t", "\u00a0", "\u2003"),
    *("🎓", "👩\u200d🔬", "❤\ufe0f", "\u200b", "\u200f", "\ufeff", "שָׁלוֹם", "سَلام", "\u0301", "\u0345"),
    *("&", "&amp;", "&quot;", "&#39;", "&#x26;", "&nbsp;", "&amp;quot;", "quot;", "amp;", "#39;", ";", "&para", "a"),
]
texts = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)
starts = st.integers(-3, 40)


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
        (
            "&CounterClockwiseContourIntegral; &CounterClockwiseContourIntegrals;",
            "∳ &CounterClockwiseContourIntegrals;",
            1,
        ),
        ("caf&eacute;; x", "café; x", 1),
        ("P&D; a&b c;", "P&D; a&b c;", 0),
        ("Arte &para todos; &copy 2020", "Arte &para todos; &copy 2020", 0),  # html.unescape would take both
        ("&notit; &#; &#x; &#12345678;", "&notit; &#; &#x; &#12345678;", 0),
        ("&#0000097; &#x00061; &#x0000061;", "a a &#x0000061;", 2),
        ("&#1;&#0;&#xD800;", "\ufffd\ufffd", 3),  # as HTML defines for invalid characters
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
def test_clean_maps_characters_and_is_idempotent(raw: str) -> None:
    cleaned = clean(raw)
    assert len(cleaned.source_indices) == len(cleaned.text)
    assert list(cleaned.source_indices) == sorted(cleaned.source_indices)
    # The character itself, or the start of its entity.
    assert all(raw[at] in (character, "&") for character, at in zip(cleaned.text, cleaned.source_indices, strict=True))
    again = clean(cleaned.text)
    assert (again.text, again.entities) == (cleaned.text, 0)
    cleaned.text.encode("utf-8")


# --- normalization -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("São JOÃO", "sao joao"),
        ("Sa\u0303o", "sao"),
        ("“a” ‘b’ «c»", '"a" \'b\' "c"'),
        ("1990–2000 — fim", "1990-2000 - fim"),
        ("a \t\u00a0\n b", "a b"),
        ("a \u0301 b", "a b"),  # without the mark, one space remains
        ("ΣΊΣΥΦΟΣ Σίσυφος", "σισυφοσ σισυφοσ"),
        ("Straße", "straße"),  # "ss" would be two characters
        ("각", "각"),
    ],
)
def test_normalize(text: str, normalized: str) -> None:
    assert normalize(text).text == normalized


@given(texts)
def test_normalize_maps_characters_and_is_idempotent(text: str) -> None:
    normalized = normalize(text)
    assert len(normalized.source_indices) == len(normalized.text)
    assert all(
        normalize(text[at]).text == character
        for character, at in zip(normalized.text, normalized.source_indices, strict=True)
    )
    assert normalize(normalized.text).text == normalized.text


@given(st.text(st.characters(max_codepoint=0x17F)))
def test_composed_and_decomposed_latin_text_normalize_equally(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert normalize(composed).text == normalize(decomposed).text


# --- one answer ----------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(texts, texts, starts)
def test_any_answer_in_any_context(raw_context: str, raw_answer: str, raw_start: int) -> None:
    prepared = AlignmentContext(raw_context)
    result = align_answer(prepared, raw_answer, raw_start)
    answer = clean(raw_answer).text
    pattern = normalize(answer).text.strip()
    if not answer:
        assert (result.start, result.match) == (NO_START, MatchType.EMPTY)
    elif answer in prepared.text or (pattern and pattern in normalize(prepared.text).text):
        assert result.match in (MatchType.EXACT, MatchType.MOVED, MatchType.NORMALIZED)
        assert result.text == answer or result.match == MatchType.NORMALIZED
        assert normalize(result.text).text.strip() == pattern
        assert result.text == result.text.strip()
    else:
        assert (result.text, result.start, result.match) == (answer, NO_START, MatchType.NOT_FOUND)
    if result.start != NO_START:
        assert result.start >= 0
        assert result.text
        assert prepared.text[result.start : result.start + len(result.text)] == result.text
        again = align_answer(AlignmentContext(prepared.text), result.text, result.start)
        assert (again.text, again.start, again.match) == (result.text, result.start, MatchType.EXACT)


@settings(max_examples=300, deadline=None)
@given(st.text("ab ", min_size=1, max_size=30), st.text("ab", min_size=1, max_size=3), starts)
def test_exact_match_is_the_nearest(context: str, answer: str, start: int) -> None:
    """Whole words come first, unless the answer stands at its start."""
    assume(context.strip() and start != NO_START)
    expected_start = max(start - (len(context) - len(context.lstrip())), 0)
    prepared = AlignmentContext(context)
    expected_start = min(expected_start, len(prepared.text))
    expected: int | None = expected_start
    if not prepared.text.startswith(answer, expected_start):
        expected = nearest_occurrence(prepared.text, answer, expected_start)
    result = align_answer(prepared, answer, start)
    assert result.start == (NO_START if expected is None else expected)


@settings(max_examples=300, deadline=None)
@given(st.text("áà b", min_size=1, max_size=30), st.text("âb", min_size=1, max_size=3), st.integers(0, 30))
def test_normalized_match_is_the_nearest(context: str, answer: str, start: int) -> None:
    prepared = AlignmentContext(context)
    assume(prepared.text == context and "  " not in context and "â" in answer)
    expected = nearest_occurrence(normalize(context).text, normalize(answer).text, min(start, len(context)))
    result = align_answer(prepared, answer, start)
    assert result.start == (NO_START if expected is None else expected)


@settings(deadline=None)
@given(texts, st.data())
def test_a_span_of_the_raw_context_is_an_exact_match(raw: str, data: st.DataObject) -> None:
    """The text around the span may change in cleaning. The test skips spans that cut an entity."""
    start = data.draw(st.integers(0, len(raw)))
    answer = raw[start : data.draw(st.integers(start, len(raw)))]
    prepared, cleaned = AlignmentContext(raw), clean(answer)
    marked = clean(raw[:start] + "\x00" + answer + "\x00" + raw[start + len(answer) :]).text
    assume(cleaned.text and marked.replace("\x00", "").strip() == prepared.text and marked.count("\x00") == 2)
    result = align_answer(prepared, answer, start)
    assert (result.text, result.match) == (cleaned.text, MatchType.EXACT)
    assert prepared.text[: result.start].strip() == marked[: marked.index("\x00")].strip()


@pytest.mark.parametrize(
    ("context", "answer", "start", "expected"),
    [
        ("Fica em Campo Grande.", "Campo Grande", 8, ("Campo Grande", 8, MatchType.EXACT)),
        ("Fica em Campo Grande.", "Campo Grande", 0, ("Campo Grande", 8, MatchType.MOVED)),
        ("  Fica em Campo Grande.", " Campo Grande", 9, ("Campo Grande", 8, MatchType.EXACT)),
        ("&quot;Sul&quot; ou &quot;Sul&quot;", "&quot;Sul&quot;", 19, ('"Sul"', 9, MatchType.EXACT)),
        ("&quot;Sul&quot; ou &quot;Sul&quot;", "Sul", 25, ("Sul", 10, MatchType.EXACT)),
        ("&quot;Sul&quot; ou &quot;Sul&quot;", '"Sul"', 20, ('"Sul"', 9, MatchType.MOVED)),
        ("em setembro de 1876, o", "Setembro de 1876", 0, ("setembro de 1876", 3, MatchType.NORMALIZED)),
        ("o 'João – o Moço' diz", "‘joao - O moco’", 0, ("'João – o Moço'", 2, MatchType.NORMALIZED)),
        ("diz  que\nsim", "Que sim", 0, ("que\nsim", 5, MatchType.NORMALIZED)),
        ("o cafe\u0301 e o chá", "CAFÉ", 0, ("cafe\u0301", 2, MatchType.NORMALIZED)),  # includes the combining accent
        ("toma cafe\u0301", "CAFÉ", 0, ("cafe\u0301", 5, MatchType.NORMALIZED)),
        ("Sul sul", "SUL", 6, ("sul", 4, MatchType.NORMALIZED)),
        ("o sul ou Sul", "Sul", 0, ("Sul", 9, MatchType.MOVED)),  # an exact match is preferred to a closer one
        ("sul ou Sul", "Sul", 0, ("sul", 0, MatchType.NORMALIZED)),  # but not to one at the index
        ("sulista ou Sul", "Sul", 0, ("Sul", 11, MatchType.MOVED)),
        ("O rei morreu em 1981. Em 8 de maio, ele voltou.", "8", 10, ("8", 25, MatchType.MOVED)),
        ("O rei morreu em 1981. Em 8 de maio, ele voltou.", "em", 22, ("Em", 22, MatchType.NORMALIZED)),
        ("Foi eleito aqui. Depois, disse o povo, ele voltou.", "ele", 0, ("ele", 39, MatchType.MOVED)),
        ("Foi eleito aqui. Depois, disse o povo, ele voltou.", "ele", 4, ("ele", 4, MatchType.EXACT)),
        ("Foi eleito aqui. Depois, disse o povo, Ele voltou.", "ele", 0, ("Ele", 39, MatchType.NORMALIZED)),
        ("um leigo, um eleito, um relevo", "ele", 30, ("ele", 25, MatchType.MOVED)),  # no whole word
        ("e\u0301" * 4 + " Sul x sul", "SUL", 9, ("Sul", 9, MatchType.NORMALIZED)),  # distances do not count marks
        ("o sul", "\u0301 Sul", 0, ("sul", 2, MatchType.NORMALIZED)),
        ("Straße", "STRASSE", 0, ("STRASSE", NO_START, MatchType.NOT_FOUND)),
        ("não está aqui", "em lugar nenhum", 4, ("em lugar nenhum", NO_START, MatchType.NOT_FOUND)),
        ("abc", "\u0301", 0, ("\u0301", NO_START, MatchType.NOT_FOUND)),
        ("abc", " &nbsp; ", 0, ("", NO_START, MatchType.EMPTY)),
        ("abc", "c", 10**30, ("c", 2, MatchType.MOVED)),
    ],
)
def test_align_answer(context: str, answer: str, start: int, expected: tuple[str, int, MatchType]) -> None:
    result = align_answer(AlignmentContext(context), answer, start)
    assert (result.text, result.start, result.match) == expected


# --- whole questions -----------------------------------------------------------------------------------------


def test_align_question_keeps_usable_answers() -> None:
    raw = Question("1", " &quot;Onde&quot;? ", "Em  Sa\u0303o Paulo ", ("são paulo", "Rio", " "), (0, 0, 0), "S&amp;P")
    prepared = AlignmentContext(raw.context)
    for_training, alignments = align_question(raw, prepared, keep_unaligned=False)
    assert for_training == Question("1", '"Onde"?', "Em  Sa\u0303o Paulo", ("Sa\u0303o Paulo",), (4,), "S&P")
    assert is_aligned(for_training)
    assert [alignment.match for alignment in alignments] == [MatchType.NORMALIZED, MatchType.NOT_FOUND, MatchType.EMPTY]
    for_evaluation, _ = align_question(raw, prepared, keep_unaligned=True)
    assert for_evaluation.answer_texts == ("Sa\u0303o Paulo", "Rio")
    assert for_evaluation.answer_starts == (4, NO_START)
    assert not is_aligned(for_evaluation, 1)


def test_time_is_linear_in_the_text() -> None:
    """A megabyte of nested entities, spaces, marks and partial entities."""
    begin = time.process_time()
    for unit in ("&amp;", "amp;", "&#38;", "a ", "a\u0301"):
        prepared = AlignmentContext("&" + unit * (1_000_000 // len(unit)))
        align_answer(prepared, "Nada disso", 500_000)
        align_answer(prepared, unit * 100_000 + "b", NO_START)
    assert time.process_time() - begin < 20  # about 3 s; hours if quadratic


@pytest.mark.parametrize(
    ("context", "answer", "expected", "ambiguous"),
    [
        ("O critério foi definido no RIO de Janeiro.", "Rio", ("RIO", 27, MatchType.NORMALIZED), False),
        ("O critério foi escolhido no Rio de Janeiro.", "rio", ("Rio", 28, MatchType.NORMALIZED), False),
        ("A caravana passou. Ana viu.", "ANA", ("Ana", 19, MatchType.NORMALIZED), False),
        ("O humano viveu no Ano 1500 e no ano 1600", "ANO", ("Ano", 18, MatchType.NORMALIZED), True),
        ("O humano viveu no Ano 1500 e no ano 1600", "ano", ("ano", 32, MatchType.MOVED), False),
        ("caravanas", "ana", ("ana", 5, MatchType.MOVED), False),
        ("caravanas e bananas", "ANA", ("ana", 5, MatchType.NORMALIZED), True),
        ("caravanas", "rio", ("rio", NO_START, MatchType.NOT_FOUND), False),
    ],
)
def test_without_a_start_index_whole_words_come_first(
    context: str, answer: str, expected: tuple[str, int, MatchType], ambiguous: bool
) -> None:
    found = align_answer(AlignmentContext(context), answer, NO_START)
    assert (found.text, found.start, found.match) == expected
    assert found.is_ambiguous is ambiguous


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("O avo\u0302 e o avo", "avo", ("avo", 11, MatchType.MOVED)),
        ("कमी और कम", "कम", ("कम", 7, MatchType.MOVED)),
        ("cafe\u0301", "cafe", ("cafe\u0301", 0, MatchType.NORMALIZED)),
        ("aca\u0301rio e rio", "rio", ("rio", 10, MatchType.MOVED)),  # the letter before the mark continues the word
        ("Vila ❤\ufe0frio, rio", "rio", ("rio", 7, MatchType.MOVED)),  # the sign before the mark does not
        ("ro\u0301 e \u0301 e", "\u0301 e", ("e", 4, MatchType.NORMALIZED)),
        ("cafe\u0301s", "cafe", ("cafe", 0, MatchType.MOVED)),
    ],
)
def test_a_combining_mark_belongs_to_the_word_before_it(
    context: str, answer: str, expected: tuple[str, int, MatchType]
) -> None:
    found = align_answer(AlignmentContext(context), answer, NO_START)
    assert (found.text, found.start, found.match) == expected
