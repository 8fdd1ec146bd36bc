"""A tokenizer for questions and contexts, and the characters that each of its tokens stands for.

Tokenizers report the characters of their tokens, the *offsets*, in several ways: with the white space before a word or
without it, with the accents that they remove or without them, and a few of them wrongly. Here they become the same for
all tokenizers.

This module needs numpy and tokenizers only: `answer.py` in every exported folder is written from its source.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from string import ascii_letters

import numpy as np
from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE, WordLevel, WordPiece

from adapter_qa.core.errors import UserError

MAX_JOINED = 16  # characters before another one that a normalizer may join with it; longer ones take quadratic time
TABLE_SIZE = 0x10000  # code points with an entry of their own in a table of blanks; no blank is above
# What tokenizers write in place of a space: SentencePiece, byte-level ones, and the former within the latter.
SPACE_MARKS = ("▁", "Ġ", "âĸģ")
UNKNOWN = "?"  # in place of a token whose characters are not in the vocabulary
# Tokenizers are compared with these texts when they are loaded: words at the beginning and behind spaces, line breaks,
# punctuation, digits and letters of other scripts; accents as characters of their own; characters of several bytes; and
# each letter at the beginning.
PROBE_TEXTS = (
    "Recife é a capital de Pernambuco desde 1827, e tem 1.653.461 habitantes (censo de 2010).",
    " São Paulo  foi fundada em\n25 de janeiro de 1554; a D'Ávila\u00a0não. iPhone15 a1b2 R$ 3,50",
    "Corac\u0327a\u0303o e\u0301 bom; Alpha日本Beta Москваabc “x” 👍🏽 fim",
    *ascii_letters,
)


@dataclass(frozen=True)
class PairTokenizer:
    """A tokenizer and what is needed to join question and context with it.

    Attributes:
        name: for error messages.
        pad_left: padding is on the left; then the context comes first and the question second.
        has_token_types: the encoder takes token types.
        split_special_tokens: the spelling of a special token within a text is tokenized as any other text.
    """

    tokenizer: Tokenizer
    name: str
    cls_token_id: int
    pad_token_id: int
    pad_left: bool
    has_token_types: bool
    split_special_tokens: bool = False

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenize each text by itself, without special tokens, truncation and padding."""
        self._reset()
        encodings: list[Encoding] = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return encodings

    def encode_pair(self, first: str, second: str) -> Encoding:
        """Tokenize two texts together, with special tokens, without truncation and padding."""
        self._reset()
        return self.tokenizer.encode(first, second)

    def char_spans(self, texts: Sequence[str], encodings: Sequence[Encoding], ids: np.ndarray) -> np.ndarray:
        """Return start and end character in its text, (tokens, 2) int32, of every token of `encode`.

        `ids`, (tokens,), are those of all encodings.

        They are the offsets of the tokenizer with these changes:

        - White space at both ends is left out, and so are control characters that the tokenizer turns into white space
          or removes.
        - A token of white space only has an empty span, and so has a mark for a space that stands before a word and
          that the tokenizer has inserted there.
        - Characters that belong to no token, because the tokenizer makes one of them and their neighbour, belong to the
          neighbour's token. So do accents that it removes.
        """
        lengths = [len(encoding) for encoding in encodings]
        offsets = np.fromiter(
            chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings)),
            np.int64,
            2 * sum(lengths),
        ).reshape(-1, 2)
        text = "".join(texts)
        chars = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        text_starts = np.array([0, *accumulate(map(len, texts))])
        shifts = np.repeat(text_starts[:-1], lengths)
        start, end = (offsets + shifts[:, None]).T  # in the joined text
        blank = np.append(self._blanks[np.minimum(chars, TABLE_SIZE - 1)], False)
        _trim(start, end, blank)
        self._share_gaps(start, end, text, blank, text_starts)
        self._empty_inserted_marks(start, end, ids)
        spans: np.ndarray = np.stack([start - shifts, end - shifts], axis=1).astype(np.int32)
        return spans

    @cached_property
    def _blanks(self) -> np.ndarray:
        """Whether each character, by code point, is white space or becomes white space or nothing; (TABLE_SIZE,)."""
        blanks = np.zeros(TABLE_SIZE, dtype=bool)
        blanks[ord(" ")] = True  # the only printable one
        for code, char in enumerate(map(chr, range(TABLE_SIZE - 1))):
            if not char.isprintable() and unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp"):
                blanks[code] = char.isspace() or not _without_space_marks(self._normalized(char))
        return blanks

    def _empty_inserted_marks(self, start: np.ndarray, end: np.ndarray, ids: np.ndarray) -> None:
        """Empty the spans of marks for spaces that stand before a word without a space; `end` is changed.

        The tokenizer says that such a mark is the first letter of the word; so it shares it with the next token.
        """
        shared = (start[:-1] == start[1:]) & (end[:-1] > start[:-1]) & (end[1:] > start[1:])
        rows = np.flatnonzero(shared)
        if len(rows):
            of_rows = np.unique(ids[rows]).tolist()
            marks = [index for index in of_rows if not _without_space_marks(self.tokenizer.id_to_token(index))]
            rows = rows[np.isin(ids[rows], marks)]
            end[rows] = start[rows]

    def _share_gaps(
        self, start: np.ndarray, end: np.ndarray, text: str, blank: np.ndarray, text_starts: np.ndarray
    ) -> None:
        """Extend spans over neighbouring characters that the tokenizer joins with them; `start` and `end` change."""
        rows = np.flatnonzero(end > start)
        starts, ends = start[rows], end[rows]
        gap_starts, gap_ends = np.append(0, ends), np.append(starts, len(text))
        sizes = gap_ends - gap_starts
        for gap in np.flatnonzero((sizes > 1) | ((sizes == 1) & ~blank[gap_starts])).tolist():
            left, right = int(gap_starts[gap]), int(gap_ends[gap])
            if blank[left:right].all():
                continue
            text_end = text_starts[np.searchsorted(text_starts, left, side="left")]
            for index in range(left, min(right, text_end) if gap else left):
                if self._joins(text[max(starts[gap - 1], index - MAX_JOINED) : index], text[index]):
                    left = index + 1
                elif self._normalized(text[index]):  # what the tokenizer removes may stand between
                    break
            end[rows[np.searchsorted(ends, gap_starts[gap]) : gap]] = left
            text_start = text_starts[np.searchsorted(text_starts, right, side="right") - 1]
            while right > max(left, text_start) and not blank[right - 1]:
                right -= 1
            if gap < len(rows) and self._joins(text[right : starts[gap]], text[starts[gap] : ends[gap]]):
                start[rows[gap : np.searchsorted(starts, starts[gap], side="right")]] = right

    def _joins(self, left: str, right: str) -> bool:
        """Return whether the normalizer makes one text of two, or the second is an accent or a similar mark."""
        if unicodedata.category(right[0]).startswith("M"):
            return True
        joined, *parts = (_without_space_marks(self._normalized(part)) for part in (left + right, left, right))
        return joined != "".join(parts)

    def _normalized(self, text: str) -> str:
        normalizer = self.tokenizer.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def checked(self) -> PairTokenizer:
        """Return this tokenizer, or one with the same tokens and right offsets.

        A byte-level post-processor that leaves out spaces leaves out a letter where no space is. It is switched off in
        a copy then; `char_spans` leaves out the spaces.

        Raises:
            UserError: some characters of a token are not those that the tokenizer says, and this cannot be mended.
        """
        wrong = self.wrong_token()
        if wrong is None:
            return self
        document = json.loads(self.tokenizer.to_str())
        processor = json.dumps(document["post_processor"])
        document["post_processor"] = json.loads(processor.replace('"trim_offsets": true', '"trim_offsets": false'))
        mended = replace(self, tokenizer=Tokenizer.from_str(json.dumps(document)))
        if mended.wrong_token() is not None:
            token, chars = wrong
            raise UserError(
                f"{self.name}: the tokenizer says that its token {token!r} is the text {chars!r}, so answers would be "
                "cut at wrong characters; give another one with --tokenizer_name"
            )
        return mended

    def wrong_token(self) -> tuple[str, str] | None:
        """Return a token of `PROBE_TEXTS` that its characters do not spell, and these characters; None if all do.

        Only ASCII letters and digits are compared, without case: of the token, and of its characters after the
        tokenizer's own normalizer. Tokens that share characters are compared together. Unknown tokens are left out, and
        so are characters of which the tokenizer makes no token.
        """
        model = self.tokenizer.model
        suffix = model.end_of_word_suffix if isinstance(model, BPE) else None
        prefix = model.continuing_subword_prefix if isinstance(model, BPE | WordPiece) else None
        unknown = {token.content for token in self.tokenizer.get_added_tokens_decoder().values()}
        if isinstance(model, BPE | WordLevel | WordPiece):
            unknown.add(model.unk_token)
        chars = sorted(char for char in set("".join(PROBE_TEXTS)) if not char.isspace())
        unseen = [ord(char) for char, encoding in zip(chars, self.encode(chars), strict=True) if not encoding.ids]
        texts = [text.translate(dict.fromkeys(unseen)) for text in PROBE_TEXTS]
        encodings = self.encode(texts)
        ids = np.concatenate([encoding.ids for encoding in encodings])
        spans = iter(self.char_spans(texts, encodings, ids).tolist())
        for text, encoding in zip(texts, encodings, strict=True):
            groups: list[tuple[list[str], int, int]] = []  # tokens that share characters, and these
            for token, (start, end) in zip(encoding.tokens, spans, strict=False):
                is_spelled = token not in unknown and not re.fullmatch("<0x[0-9A-F]{2}>", token)
                spelling = token.removeprefix(prefix or "").removesuffix(suffix or "") if is_spelled else UNKNOWN
                tokens, first, last = groups.pop() if groups and start < groups[-1][2] else ([], start, end)
                groups.append(([*tokens, spelling], first, max(last, end)))
            for tokens, first, last in groups:
                held = text[first:last]
                if UNKNOWN not in tokens and _ascii_word("".join(tokens)) != _ascii_word(self._normalized(held)):
                    return "".join(tokens), held
        return None

    def _reset(self) -> None:
        # Written only if they differ: writing fails while another thread tokenizes.
        if self.tokenizer.truncation is not None:
            self.tokenizer.no_truncation()
        if self.tokenizer.padding is not None:
            self.tokenizer.no_padding()
        if self.tokenizer.encode_special_tokens != self.split_special_tokens:
            self.tokenizer.encode_special_tokens = self.split_special_tokens


def _trim(start: np.ndarray, end: np.ndarray, blank: np.ndarray) -> None:
    """Leave out blanks at both ends of spans, in place; a span of blanks only becomes empty, at its end."""
    rows = np.flatnonzero(blank[start] & (start < end))
    while len(rows):
        start[rows] += 1
        rows = rows[blank[start[rows]] & (start[rows] < end[rows])]
    rows = np.flatnonzero(blank[end - 1] & (start < end))
    while len(rows):
        end[rows] -= 1
        rows = rows[blank[end[rows] - 1] & (start[rows] < end[rows])]


def _without_space_marks(token: str) -> str:
    """Return a token without marks for spaces and without white space at its ends."""
    for mark in SPACE_MARKS:
        token = token.replace(mark, "")
    return token.strip()


def _ascii_word(text: str) -> str:
    return "".join(char for char in text if char.isascii() and char.isalnum()).lower()
