"""The characters of tokens, and labels, of all families of tokenizers, against the texts themselves."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.questions import window_offsets
from support.tokenizer_families import CUTTING, FAMILIES, byte_level, unchecked
from tokenizers.normalizers import NFD, ByteLevel
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Split

from adapter_qa.core.errors import UserError
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.pair_tokenizer import PairTokenizer
from adapter_qa.data.questions import Question
from adapter_qa.data.spans import WindowSpans, choose_answers, window_spans
from adapter_qa.data.windows import Windows, make_windows, pad_windows

# Those of the property tests: each treats white space, accents, capitals or characters of several bytes in its own way.
VARIED = [
    *("BERT cased", "BERT uncased", "XLM-R", "XLM-R, white space", "ALBERT", "LLaMA", "BPE, Metaspace", "RoBERTa"),
    *("ModernBERT", "bytes of words with a space inserted", "words, no accents", "characters, no accents"),
]
NOT_IN_XLMR = dict.fromkeys([*range(1, 9), 11, *range(14, 32), 127, 143, 159])  # control characters that it removes
# What the normalizers of these families make of a text, written anew with Python's own functions.
NORMAL_FORMS: dict[str, Callable[[str], str]] = {
    "BERT uncased": lambda text: _without_accents(unicodedata.normalize("NFD", text), ("Mn",)).lower(),
    "ALBERT": lambda text: _without_accents(unicodedata.normalize("NFKD", _quotes(text))).lower(),
    "XLM-R": lambda text: unicodedata.normalize("NFKC", text.translate(NOT_IN_XLMR)),
    "XLM-R, white space": lambda text: unicodedata.normalize("NFKC", text.translate(NOT_IN_XLMR)),
    "BPE, Metaspace": lambda text: unicodedata.normalize("NFKC", text),
    "ModernBERT": lambda text: unicodedata.normalize("NFC", text),
    "words, no accents": lambda text: _without_accents(unicodedata.normalize("NFD", text)).lower(),
    "characters, no accents": lambda text: _without_accents(unicodedata.normalize("NFKD", text)).lower(),
}
# Words of the vocabularies, composed and decomposed accents, letters that become several, marks of several scripts,
# white space and control characters of all kinds, quotation marks that ALBERT replaces, characters of several bytes.
PIECES = [
    *("Ana", "nasceu", "em", "Recife", "São Luís", "juíza", "1827", ".", ",", "(", "R$ 3,50", "a", "I"),
    *(
        "Sa\u0303o",
        "e\u0301",
        "\u0301",
        "\u0327",
        "ß",
        "ﬁ",
        "½",
        "…",
        "각",
        "\u1112\u1161\u11ab",
        "ｶﾞ",
        "日本",
        "𝔸",
        "ก็",
    ),
    *(
        "👩\u200d👩\u200d👧",
        "👍🏽",
        "❤\ufe0f",
        "שָׁלוֹם",
        "سَلام",
        "\u202e",
        "\u200f",
        "\u00ad",
        "\u200b",
        "\ufeff",
        "\x07",
    ),
    *(" ", " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\x85", "\u2028", "''", "``", '"', "[SEP]", "##"),
]
# "▁" within a text is a space for the tokenizers that write spaces so.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁")
TEXT = st.lists(st.sampled_from(PIECES) | CHARACTERS, min_size=1, max_size=14).map("".join)
EXAMPLES = settings(max_examples=25, deadline=None)
family = cache(lambda name: unchecked(FAMILIES[name]()).checked())


def _without_accents(text: str, categories: tuple[str, ...] = ("Mn", "Mc", "Me")) -> str:
    return "".join(char for char in text if unicodedata.category(char) not in categories)


def _quotes(text: str) -> str:
    return text.replace("``", '"').replace("''", '"')


def is_visible(char: str) -> bool:
    """Return whether every tokenizer should make something of a character: no white space, control character, mark."""
    return not char.isspace() and unicodedata.category(char)[0] not in "CM"


def spelling(token: str) -> str:
    """Return the characters of a byte-level token, replacement characters for a part of one."""
    codes = {char: byte for byte, char in zip(BYTE_ORDER, BYTE_CHARS, strict=True)}
    return bytes(codes[char] for char in token).decode("utf-8", "replace")


# The alphabet of byte-level tokenizers: printable characters stand for themselves, the other bytes for letters.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_ORDER = [*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE)]
BYTE_CHARS = [*map(chr, PRINTABLE), *map(chr, range(256, 256 + 256 - len(PRINTABLE)))]


# ---------------------------------------------------------------- which tokenizers are taken


@pytest.mark.parametrize("name", list(FAMILIES))
def test_tokenizers_with_right_offsets_are_taken_as_they_are(name: str) -> None:
    tokenizer = unchecked(FAMILIES[name]())
    assert tokenizer.checked() is tokenizer


@pytest.mark.parametrize("name", list(CUTTING))
def test_byte_level_tokenizers_that_cut_off_letters_are_mended_in_a_copy(name: str) -> None:
    given_tokenizer = CUTTING[name]()
    before = given_tokenizer.to_str()
    mended = unchecked(given_tokenizer).checked()
    assert mended.tokenizer is not given_tokenizer
    assert given_tokenizer.to_str() == before
    text = "a casa, 1827 é Alfa Бета a1"
    assert mended.encode([text])[0].ids == given_tokenizer.encode(text, add_special_tokens=False).ids
    for start, end in [(0, 1), (2, 6), (8, 12), (13, 14), (15, 19), (20, 24)]:
        windows = labelled(mended, text, start, end)
        assert decoded(windows, text) == text[start:end]


def test_wrong_offsets_are_refused_in_one_line() -> None:
    # The accents are split off the letters that stand for bytes, and the library loses count.
    tokenizer = byte_level(Split(" ", "isolated"), normalizer=Normalizers([ByteLevel(), NFD()]))
    with pytest.raises(UserError, match=r"^a tokenizer: the tokenizer says that its token .* --tokenizer_name$"):
        unchecked(tokenizer).checked()


# ---------------------------------------------------------------- any text


def spans_of(tokenizer: PairTokenizer, text: str) -> list[tuple[str, int, int]]:
    """Return every token with the characters that it stands for."""
    (encoding,) = tokenizer.encode([text])
    spans = tokenizer.char_spans([text], [encoding], np.array(encoding.ids)).tolist()
    return [(token, start, end) for token, (start, end) in zip(encoding.tokens, spans, strict=True)]


@pytest.mark.parametrize("name", VARIED)
def test_spans_of_any_text(name: str) -> None:
    tokenizer = family(name)

    @EXAMPLES
    @given(TEXT)
    def check(text: str) -> None:
        spans = spans_of(tokenizer, text)
        assert all(0 <= start <= end <= len(text) for _, start, end in spans)
        assert all(text[start:end] == text[start:end].strip() for _, start, end in spans)
        assert [start for _, start, _ in spans] == sorted(start for _, start, _ in spans)
        assert [end for _, _, end in spans] == sorted(end for _, _, end in spans)
        covered = {index for _, start, end in spans for index in range(start, end)}
        lost = {char for index, char in enumerate(text) if index not in covered and is_visible(char)}
        assert not {char for char in lost if tokenizer.encode([char])[0].ids}

    check()


@pytest.mark.parametrize("name", VARIED)
def test_tokens_of_any_text_are_spelled_by_their_characters(name: str) -> None:
    tokenizer = family(name)
    normal_form = NORMAL_FORMS.get(name, str)
    prefix = "##" if name.startswith("BERT") else ""
    in_bytes = name in ("RoBERTa", "ModernBERT") or name.startswith("bytes")

    @EXAMPLES
    @given(TEXT)
    def check(text: str) -> None:
        spans = spans_of(tokenizer, text)
        for index, (token, start, end) in enumerate(spans):
            alone = all(
                other_end <= start or other_start >= end
                for other, (_, other_start, other_end) in enumerate(spans)
                if other != index
            )
            written = spelling(token) if in_bytes else token.removeprefix(prefix).replace("▁", " ")
            # A normalizer makes "fí" of the ligature "ﬁ" and an accent, and no span is right for each letter.
            alone &= not any(
                len(_without_accents(normal_form(left))) > 1 and unicodedata.category(right) == "Mn"
                for left, right in pairwise(text[max(start - 1, 0) : end + 1])
            )
            if start < end and alone and token not in ("[UNK]", "[SEP]") and not token.startswith("<0x"):
                chars = normal_form(text[start:end])
                # Characters that a normalizer removes are not the subject here.
                kept = {"Cc", "Cf", "Co", "Cn", "Mn"}
                expected, found = (
                    [char for char in part if unicodedata.category(char) not in kept and not char.isspace()]
                    for part in (chars, written)
                )
                assert found == expected

    check()


def labelled(tokenizer: PairTokenizer, context: str, start: int, end: int) -> Windows:
    """Return the one window of a question about a context with an answer."""
    question = Question("q", "Onde?", context, (context[start:end],), (start,))
    windows = make_windows([question], tokenizer, max_seq_length=400, doc_stride=0)
    assert len(windows) == 1
    return windows


def decoded(windows: Windows, context: str) -> str:
    """Return the text of the labelled tokens of the first window."""
    offsets = window_offsets(windows, 0)
    return context[offsets[windows.start_position[0], 0] : offsets[windows.end_position[0], 1]]


@pytest.mark.parametrize("name", VARIED)
def test_labels_of_any_text_decode_to_their_answer(name: str) -> None:
    tokenizer = family(name)

    @EXAMPLES
    @given(TEXT.filter(str.strip), st.data())
    def check(context: str, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(context) - 1))
        end = data.draw(st.integers(start + 1, len(context)))
        if not context[start:end].strip():
            return
        windows = labelled(tokenizer, context, start, end)
        spans = [range(first, last) for _, first, last in spans_of(tokenizer, context)]
        held = [index for index in range(start, end) if any(index in span for span in spans)]
        if not held:
            assert (windows.start_position[0], windows.end_position[0]) == (IGNORE_INDEX, IGNORE_INDEX)
            assert windows.answers_without_tokens == 1
            return
        assert 0 < windows.start_position[0] <= windows.end_position[0]
        # The last token that begins at or before the first character, and the first one that ends at or after the last.
        start = max(span.start for span in spans if held[0] in span)
        end = min(span.stop for span in spans if held[-1] in span)
        assert decoded(windows, context) == context[start:end]

    check()


@pytest.mark.parametrize("name", VARIED)
def test_answers_of_any_text_are_at_their_offsets(name: str) -> None:
    tokenizer = family(name)

    @EXAMPLES
    @given(TEXT.filter(str.strip), st.integers(0, 99))
    def check(context: str, seed: int) -> None:
        questions = [Question("q", "Onde?", context, (), ())]
        windows = make_windows(questions, tokenizer, max_seq_length=24, doc_stride=4)
        batch = pad_windows([windows[index] for index in range(len(windows))], 0, pad_left=False)
        logits = np.random.default_rng(seed).normal(size=(2, *batch["input_ids"].shape)).astype(np.float32)
        options = AnsweringOptions(24, 4, n_best_size=20, max_answer_length=6)
        spans = window_spans(batch, logits[0], logits[1], options)
        answers = choose_answers(questions, windows, WindowSpans(*spans), options)
        borders = spans_of(tokenizer, context)
        for candidate in answers.candidates(0):
            assert candidate.text == context[candidate.start : candidate.end].strip()
            if candidate.text:
                assert candidate.start in {start for _, start, end in borders if start < end}
                assert candidate.end in {end for _, start, end in borders if start < end}

    check()


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("XLM-R", " Recife  é", [("▁Recife", 1, 7), ("▁", 9, 9), ("é", 9, 10)]),
        ("XLM-R", "\u200bRecife\u00a0.", [("▁Recife", 1, 7), ("▁", 8, 8), (".", 8, 9)]),
        ("XLM-R", "Se\u0301", [("▁", 0, 0), ("S", 0, 1), ("é", 1, 3)]),
        ("XLM-R, white space", "é a", [("▁", 0, 0), ("é", 0, 1), ("▁", 2, 2), ("a", 2, 3)]),
        ("ALBERT, white space", "é", [("▁", 0, 0), ("e", 0, 1)]),
        ("ALBERT", "``Recife''", [("▁", 0, 0), ('"', 0, 2), ("recife", 2, 8), ('"', 8, 10)]),
        ("BERT uncased", "Jose\u0301 e", [("j", 0, 1), ("##o", 1, 2), ("##s", 2, 3), ("##e", 3, 5), ("e", 6, 7)]),
        ("LLaMA", "Recife é", [("▁", 0, 0), ("Recife", 0, 6), ("▁é", 7, 8)]),
        ("Gemma", "em B", [("e", 0, 1), ("m▁", 1, 2), ("B", 3, 4)]),
        ("BPE, Metaspace", "½m", [("▁", 0, 0), ("1", 0, 1), ("[UNK]", 0, 1), ("2", 0, 1), ("m", 1, 2)]),
        ("RoBERTa with spaces", " Ana\n", [("ĠA", 1, 2), ("na", 2, 4), ("Ċ", 5, 5)]),
        ("bytes of words with a space inserted", "a é", [("Ġa", 0, 1), ("ĠÃ©", 2, 3)]),
    ],
)
def test_spans(name: str, text: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans_of(family(name), text) == expected


@pytest.mark.parametrize("name", ["BERT cased", "BERT uncased", "XLM-R", "ALBERT, white space", "RoBERTa", "LLaMA"])
@pytest.mark.parametrize(
    ("before", "answer", "after"),
    [
        ("Ana nasceu em", " Recife", " e é juíza."),
        ("Ana nasceu em ", "Recife ", "e é juíza."),
        ("Ana nasceu em ", "Recife \n", ""),
        ("", "\u00a0\u3000Recife", " é bom."),
        ("", "Recife", " é bom."),
        ("Ana nasceu em ", "\u200bRecife\u200b", " e é juíza."),
        ("Ana nasceu em ", "Recife\ufeff", ""),
        ("\ufeff", "Recife", ""),
        ("(", "\u2029Recife\x85", ")"),
    ],
)
def test_answers_with_borders_of_white_space_or_no_token(name: str, before: str, answer: str, after: str) -> None:
    text = before + answer + after
    windows = labelled(family(name), text, len(before), len(before + answer))
    label = decoded(windows, text)
    if name in ("RoBERTa", "LLaMA", "ALBERT, white space"):  # these have tokens with characters without width
        assert label.strip("\u200b\ufeff") == "Recife"
    else:
        assert label == "Recife"


@pytest.mark.parametrize("name", ["RoBERTa", "ALBERT, white space", "LLaMA", "characters, no accents"])
def test_answer_of_one_character_that_several_tokens_share(name: str) -> None:
    text = "opção Ű é 5 ½ ."
    tokenizer = family(name)
    for char in "Űé5½.":
        start = text.index(char)
        windows = labelled(tokenizer, text, start, start + 1)
        assert decoded(windows, text) == char
        count = sum(first <= start < last for _, first, last in spans_of(tokenizer, text))
        assert windows.end_position[0] - windows.start_position[0] + 1 == windows.answer_tokens[0] == count


def test_long_runs_of_removed_characters_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text of a PDF may have thousands of characters of the private use area, which BERT removes."""
    tokenizer = unchecked(FAMILIES["BERT cased"]())
    lengths: list[int] = []
    normalized = PairTokenizer._normalized

    def counted(self: PairTokenizer, text: str) -> str:
        lengths.append(len(text))
        return normalized(self, text)

    monkeypatch.setattr(PairTokenizer, "_normalized", counted)
    texts = ["Recife" + "\uf0b7" * count + " fim" for count in (500, 1000)]
    totals = []
    for text in texts:
        lengths.clear()
        spans = spans_of(tokenizer, text)
        assert spans[0][1:] == (0, 6)
        totals.append(sum(lengths))
    assert totals[1] < 2.2 * totals[0]
