"""Brute-force versions of cleaning and of the search for the nearest occurrence that is a whole word."""

from __future__ import annotations

import html
import re
from html.entities import html5


def brute_clean(raw: str) -> str:
    """Replace entities that end in a semicolon, the leftmost complete one first, until there is none."""
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


def nearest_occurrence(text: str, pattern: str, index: int) -> int | None:
    """Return the start of the whole word closest to `index`, the left one if two are; None if there is none.

    If no occurrence is a whole word, all count that do not overlap, from the left.
    """
    word = re.escape(pattern)
    matches = [*re.finditer(rf"\b{word}\b", text)] or [*re.finditer(word, text)]
    starts = [match.start() for match in matches]
    return min(starts, key=lambda start: (abs(start - index), start), default=None)
