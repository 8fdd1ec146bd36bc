"""Answers as HTML: highlighted in their context, with candidates and fusion attention. All texts are escaped.

`STYLE` expects the HTML inside an element with the id `result`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from adapter_qa.inference.answer_text import numbers_text, place_text, probability_text

if TYPE_CHECKING:
    from adapter_qa.models.metadata import FusionAttentionDocument

MAX_CONTEXT = 4000  # characters; a longer context is cut around the answer
DARK_WEIGHT = 0.55  # cells with a higher weight are dark and have white text
NO_ANSWER = "no answer"
STYLE = """
#result .question { margin: 0 0 .6rem; font-style: italic; overflow-wrap: anywhere; }
.runs { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
#result .run { flex: 1 1 26rem; min-width: 0; padding: 1rem; border: 1px solid var(--border-color-primary);
  border-radius: 8px; }
#result .run h2 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 600; overflow-wrap: anywhere; }
#result .run h3 { margin: 1rem 0 .4rem; font-size: .95rem; font-weight: 600; }
#result .run .answer { margin: 0 0 .75rem; font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere; }
#result .run .answer small, #result .run .hint { font-size: .85rem; font-weight: 400; color: var(--body-text-color);
  opacity: .75; }
#result .run .hint { margin: .4rem 0; }
#result .run .passage { max-height: 18rem; overflow-y: auto; padding: .6rem .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--background-fill-secondary); border-radius: 6px; line-height: 1.5; }
#result .run mark { background: #ffd84d; color: #1a1a1a; padding: .05em .15em; border-radius: 3px; }
#result .run .scroll { overflow-x: auto; }
#result .run table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: 0; }
#result .run table, #result .run tr, #result .run th, #result .run td { border: 0; }
#result .run th, #result .run td { padding: .25rem .5rem; text-align: left; }
#result .run .best tr { border-bottom: 1px solid var(--border-color-primary); }
#result .run td { overflow-wrap: anywhere; }
#result .run .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
#result .run .chosen { font-weight: 600; }
#result .run .heat td, #result .run .heat th { text-align: center; padding: .2rem .4rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
#result .run .heat td { border: 1px solid var(--background-fill-primary); }
#result .run .heat th:first-child { text-align: left; }
@media (max-width: 40rem) {
  #result .run { padding: .75rem; }
  #result .run table { font-size: .75rem; }
  #result .run .heat td, #result .run .heat th { padding: .2rem .25rem; }
}
.problem { padding: .8rem 1rem; border-left: 4px solid #c2410c; background: var(--background-fill-secondary);
  border-radius: 4px; }
.problem p { margin: 0; }
"""


class DemoAnswer(NamedTuple):
    """An answer that the page shows.

    Attributes:
        document: The answer as ask_qa.py writes it to JSON, with `n_best` if there are several candidates.
        attention: Fusion attention of the question; None without a fusion.
    """

    document: dict[str, Any]
    attention: FusionAttentionDocument | None


def problems_html(problems: Sequence[str]) -> str:
    """Return problems with the input, one paragraph each."""
    return f'<div class="problem" role="alert">{"".join(f"<p>{escape(line)}</p>" for line in problems)}</div>'


def answers_html(question: str, context: str, answers: Mapping[str, DemoAnswer]) -> str:
    """Return a question and the answers to it side by side.

    Args:
        question: The question.
        context: The context.
        answers: Answers by the name of the run that gave them.
    """
    sections = "".join(_answer_section(name, context, answer) for name, answer in answers.items())
    return f'<p class="question">{escape(question)}</p><div class="runs">{sections}</div>'


def _answer_section(name: str, context: str, answer: DemoAnswer) -> str:
    document = answer.document
    text = escape(document["answer"]) or NO_ANSWER
    parts = [
        f"<h2>{escape(name)}</h2>",
        f'<p class="answer">{text} <small>{numbers_text(document)}</small></p>',
        f'<div class="passage" dir="auto" tabindex="0">{highlight(context, document["start"], document["end"])}</div>',
        _candidate_table(document),
        heat_map(answer.attention) if answer.attention is not None else "",
    ]
    return f'<section class="run" aria-label="{escape(name)}">{"".join(parts)}</section>'


def highlight(context: str, start: int, end: int) -> str:
    """Return a context with the answer marked; a long context is cut to `MAX_CONTEXT` characters around it.

    Args:
        context: The context.
        start: First character of the answer.
        end: The character after the answer; 0 without an answer.
    """
    first, last = 0, len(context)
    if len(context) > MAX_CONTEXT:
        first = max(0, min(start - MAX_CONTEXT // 2, len(context) - MAX_CONTEXT))
        last = max(first + MAX_CONTEXT, end)
    before, after = escape(context[first:start]), escape(context[end:last])
    answer = f"<mark>{escape(context[start:end])}</mark>" if end > start else ""
    return f"{'… ' if first else ''}{before}{answer}{after}{' …' if last < len(context) else ''}"


def _candidate_table(document: dict[str, Any]) -> str:
    """Return the table of candidates and, for SQuAD v2, the probability of no answer."""
    rows = []
    for rank, candidate in enumerate(document.get("n_best", [document]), start=1):
        is_answer = (candidate["start"], candidate["end"]) == (document["start"], document["end"])
        rows.append(
            f'<tr class="{"chosen" if is_answer else "other"}"><td class="number">{rank}</td>'
            f"<td>{escape(candidate['answer']) or NO_ANSWER}</td>"
            f'<td class="number">{candidate["score"]:.2f}</td><td class="number">{place_text(candidate)}</td></tr>'
        )
    hint = ""
    if "no_answer_score" in document:
        hint = f'<p class="hint">no answer: {probability_text(document["no_answer_score"])}</p>'
    headings = '<tr><th class="number">#</th><th>candidate</th>' + "".join(
        f'<th class="number">{name}</th>' for name in ("probability", "characters")
    )
    table = f'<table class="best">{headings}</tr>{"".join(rows)}</table>'
    return f'<h3>Candidates</h3><div class="scroll">{table}</div>{hint}'


def heat_map(attention: FusionAttentionDocument) -> str:
    """Return the weights of the fused adapters as coloured cells, by adapter site, for question and context tokens."""
    weights = {"question": attention["question"], "context": attention["context"]}
    parts = [part for part in weights if weights[part]]
    names = attention["adapters"]
    part_headings = "".join(f'<th colspan="{len(names)}">{part} tokens</th>' for part in parts)
    name_headings = "".join(f"<th>{escape(name)}</th>" for _ in parts for name in names)
    rows = [
        f"<tr><th>{escape(site)}</th>"
        + "".join(_weight_cell(weight) for part in parts for weight in weights[part][index])
        + "</tr>"
        for index, site in enumerate(attention["places"])
    ]
    return (
        '<h3>Fusion attention</h3><p class="hint">mean weight of each adapter, by layer from below</p>'
        f'<div class="scroll"><table class="heat"><tr><th></th>{part_headings}</tr>'
        f"<tr><th>layer</th>{name_headings}</tr>{''.join(rows)}</table></div>"
    )


def _weight_cell(weight: float) -> str:
    """Return a cell with a background between white (0) and blue (1)."""
    background = tuple(round(255 + (blue - 255) * weight) for blue in (8, 69, 148))
    text_colour = "#fff" if weight > DARK_WEIGHT else "#1a1a1a"
    return f'<td style="background:rgb{background};color:{text_colour}">{weight:.2f}</td>'
