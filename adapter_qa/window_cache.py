"""Windows kept between runs, so that the second run of a sweep starts at once.

A file's name is a digest of all that windows follow from: texts, answers, the tokenizer itself, and the options. It is
read as plain arrays. The folder is ADAPTER_QA_CACHE, or ~/.cache/adapter_qa; removing it loses nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerFast

from adapter_qa.errors import note
from adapter_qa.squad import Question
from adapter_qa.windows import PairLayout, Tokens, Windows, make_windows

FORMAT = 1  # to be raised when `make_windows` or the file changes
WORTH_KEEPING = 5000  # questions; fewer are tokenized in a second or two
KEPT_FILES = 20  # the ones used last
LAYOUT = ("before", "between", "after")
TOKENS = ("ids", "offsets", "borders")
ROWS = ("question", "question_text", "context_text", "first", "past", "start", "end")
SINGLE = ("cls", "has_types", "cut_questions")


def kept_windows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_seq_length: int,
    doc_stride: int,
    description: str = "windows",
) -> Windows:
    """`make_windows`, or what it made of the same questions before; few questions are not kept.

    Args and errors as for `make_windows`.
    """
    sizes = {"max_seq_length": max_seq_length, "doc_stride": doc_stride}
    if len(questions) < WORTH_KEEPING:
        return make_windows(questions, tokenizer, description=description, **sizes)
    folder = cache_folder()
    path = folder / f"{digest(questions, tokenizer, sizes)}.npz"
    if path.is_file():
        try:
            windows = read_windows(path)
            os.utime(path)
            return windows
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            note([f"{path}: cannot be read ({error}); the windows are made anew"])
    windows = make_windows(questions, tokenizer, description=description, **sizes)
    try:
        write_windows(windows, path)
    except OSError as error:
        note(
            [f"{folder}: the windows are not kept for the next run ({error.strerror}); ADAPTER_QA_CACHE names a folder"]
        )
    return windows


def cache_folder() -> Path:
    """Where windows are kept."""
    return Path(os.environ.get("ADAPTER_QA_CACHE") or Path.home() / ".cache" / "adapter_qa")


def digest(questions: Sequence[Question], tokenizer: PreTrainedTokenizerFast, sizes: dict[str, int]) -> str:
    """sha256 over everything that the windows depend on, as hexadecimal digits."""
    found = hashlib.sha256()
    around = [FORMAT, tokenizers.__version__, tokenizer.padding_side, tokenizer.model_input_names, sizes]
    found.update(json.dumps([*around, tokenizer.cls_token_id]).encode())
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}  # what the last call left there
    found.update(json.dumps(backend, sort_keys=True).encode())
    for one in questions:
        parts = (one.question, one.context, *one.answer_texts[:1], *map(str, one.answer_starts[:1]))
        for part in parts:  # lengths go first, so that texts cannot run into one another
            found.update(b"%d:" % len(part))
            found.update(part.encode("utf-8", "surrogatepass"))
        found.update(b";")
    return found.hexdigest()


def write_windows(windows: Windows, path: Path) -> None:
    """Writes windows aside and renames them; the oldest files beyond `KEPT_FILES` go."""
    arrays: dict[str, Any] = {name: vars(windows)[name] for name in (*ROWS, *SINGLE)}
    arrays |= {name: vars(windows.layout)[name] for name in LAYOUT}
    arrays |= {f"types_{index}": part for index, part in enumerate(windows.layout.types)}
    arrays["question_first"] = windows.layout.question_first
    for kind, tokens in (("questions", windows.questions), ("contexts", windows.contexts)):
        arrays |= {f"{kind}_{name}": vars(tokens)[name] for name in TOKENS}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.writing")
    with aside.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(aside, path)
    files = sorted(path.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in files[KEPT_FILES:]:
        old.unlink(missing_ok=True)


def read_windows(path: Path) -> Windows:
    """What `write_windows` wrote.

    Raises:
        OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile: the file is damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    layout = PairLayout(
        before=arrays["before"],
        between=arrays["between"],
        after=arrays["after"],
        types=tuple(arrays[f"types_{index}"] for index in range(5)),
        question_first=bool(arrays["question_first"]),
    )
    questions, contexts = (Tokens(*[arrays[f"{kind}_{name}"] for name in TOKENS]) for kind in ("questions", "contexts"))
    rows: dict[str, Any] = {name: arrays[name] for name in ROWS}
    rows |= {name: arrays[name].item() for name in SINGLE}
    return Windows(layout=layout, questions=questions, contexts=contexts, **rows)
