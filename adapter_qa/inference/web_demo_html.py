"""Answers as HTML: highlighted in their context, the candidates, the fusion attention. Every text in it is escaped.

It goes into an element with the id `result`, which `STYLE` counts on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WHOLE_CONTEXT = 4000  # characters; of a longer context so many are shown around the answer
PARTS = ("question", "context")
DARK = 0.55  # weights above it stand on a dark ground and are written in white
NO_ANSWER = "no answer"
STYLE = """
#result .asked { margin: 0 0 .6rem; font-style: italic; overflow-wrap: anywhere; }
.runs { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
#result .run { flex: 1 1 26rem; min-width: 0; padding: 1rem; border: 1px solid var(--border-color-primary);
  border-radius: 8px; }
#result .run h2 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 600; overflow-wrap: anywhere; }
#result .run h3 { margin: 1rem 0 .4rem; font-size: .95rem; font-weight: 600; }
#result .run .answer { margin: 0 0 .75rem; font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere; }
#result .run .answer small, #result .run .hint { font-size: .85rem; font-weight: 400; color: var(--body-text-color);
  opacity: .75; }
#result .run .hint { margin: .4rem 0; }
#result .run .told { max-height: 18rem; overflow-y: auto; padding: .6rem .8rem; white-space: pre-wrap;
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


def problems_html(problems: Sequence[str]) -> str:
    """What is wrong with what was typed, a line each."""
    return f'<div class="problem" role="alert">{"".join(f"<p>{escape(line)}</p>" for line in problems)}</div>'


def replies_html(
    question: str, context: str, replies: Mapping[str, tuple[dict[str, Any], dict[str, Any] | None]]
) -> str:
    """Answers side by side, under their question.

    Args:
        question, context: what was asked.
        replies: by the name of what answered: the answer as JSON has it, with its `n_best` if there are several; and
            the fusion attention in the form of fusion_attention.json, if something is fused.
    """
    shown = "".join(_reply(name, context, *reply) for name, reply in replies.items())
    return f'<p class="asked">{escape(question)}</p><div class="runs">{shown}</div>'


def _reply(name: str, context: str, answer: dict[str, Any], attention: dict[str, Any] | None) -> str:
    shown = escape(answer["answer"]) or NO_ANSWER
    parts = [
        f"<h2>{escape(name)}</h2>",
        f'<p class="answer">{shown} <small>probability {answer["score"]:.3f}</small></p>',
        f'<div class="told" dir="auto" tabindex="0">{highlighted(context, answer["start"], answer["end"])}</div>',
        _candidates(answer),
        heat_map(attention) if attention is not None else "",
    ]
    return f'<section class="run" aria-label="{escape(name)}">{"".join(parts)}</section>'


def highlighted(context: str, start: int, end: int) -> str:
    """A context, or of a long one what is around the answer, with the answer marked; 0, 0 is no answer."""
    first, past = 0, len(context)
    if len(context) > WHOLE_CONTEXT:
        first = max(0, min(start - WHOLE_CONTEXT // 2, len(context) - WHOLE_CONTEXT))
        past = max(first + WHOLE_CONTEXT, end)
    before, after = escape(context[first:start]), escape(context[end:past])
    marked = f"<mark>{escape(context[start:end])}</mark>" if end > start else ""
    return f"{'… ' if first else ''}{before}{marked}{after}{' …' if past < len(context) else ''}"


def _candidates(answer: dict[str, Any]) -> str:
    """The table of candidates; for SQuAD v2 how probable it is that there is no answer."""
    rows = []
    for rank, one in enumerate(answer.get("n_best", [answer]), start=1):
        chosen = (one["start"], one["end"]) == (answer["start"], answer["end"])
        rows.append(
            f'<tr class="{"chosen" if chosen else "other"}"><td class="number">{rank}</td>'
            f"<td>{escape(one['answer']) or NO_ANSWER}</td>"
            f'<td class="number">{one["score"]:.3f}</td><td class="number">{one["start"]}</td></tr>'
        )
    hint = ""
    if "no_answer_score" in answer:
        hint = f'<p class="hint">no answer: probability {answer["no_answer_score"]:.3f}</p>'
    head = (
        '<tr><th class="number">#</th><th>candidate</th><th class="number">probability</th><th class="number">at</th>'
    )
    return f'<h3>Candidates</h3><div class="scroll"><table class="best">{head}</tr>{"".join(rows)}</table></div>{hint}'


def heat_map(attention: dict[str, Any]) -> str:
    """The weights of the fused adapters by layer, for question and context tokens, as a table of coloured cells."""
    parts = [part for part in PARTS if attention[part]]
    names = attention["adapters"]
    over = "".join(f'<th colspan="{len(names)}">{part} tokens</th>' for part in parts)
    under = "".join(f"<th>{escape(name)}</th>" for _ in parts for name in names)
    rows = [
        f"<tr><th>{escape(place)}</th>"
        + "".join(_cell(weight) for part in parts for weight in attention[part][index])
        + "</tr>"
        for index, place in enumerate(attention["places"])
    ]
    return (
        '<h3>Fusion attention</h3><p class="hint">mean weight of each adapter, by layer from below</p>'
        f'<div class="scroll"><table class="heat"><tr><th></th>{over}</tr><tr><th>layer</th>{under}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def _cell(weight: float) -> str:
    """A number on a ground between white and blue."""
    ground = tuple(round(255 + (low - 255) * weight) for low in (8, 69, 148))
    return f'<td style="background:rgb{ground};color:{"#fff" if weight > DARK else "#1a1a1a"}">{weight:.2f}</td>'
