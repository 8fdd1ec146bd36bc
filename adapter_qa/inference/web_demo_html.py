"""Answers as HTML: highlighted in their context, with candidates and fusion attention.

The macros of `web_demo.html.jinja` write it, and escape all texts. `STYLE` expects it inside an element with the id
`result`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
from markupsafe import Markup

from adapter_qa.inference.answer_text import numbers_text, place_text, probability_text

if TYPE_CHECKING:
    from adapter_qa.models.metadata import FusionAttentionDocument

MAX_CONTEXT = 4000  # characters; a longer context is cut around the answer
DARK_WEIGHT = 0.55  # cells with a higher weight are dark and have white text
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
    return str(_macros().problems(problems))


def answers_html(question: str, context: str, answers: Mapping[str, DemoAnswer]) -> str:
    """Return a question and the answers to it side by side; `answers` are by the name of the run that gave them."""
    return str(_macros().answers(question, context, answers))


@cache
def _macros() -> Any:
    """Return the macros of the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "numbers": numbers_text, "place": place_text, "probability": probability_text, "colours": _colours
    }  # fmt: skip
    environment.globals["highlight"] = highlight
    return environment.get_template("web_demo.html.jinja").module


def highlight(context: str, start: int, end: int) -> Markup:
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
    parts = ("… " if first else "", context[first:start], context[start:end], context[end:last])
    form = "{}{}<mark>{}</mark>{}{}" if end > start else "{}{}{}{}{}"
    return Markup(form).format(*parts, " …" if last < len(context) else "")


def _colours(weight: float) -> str:
    """Return the style of a cell with a background between white (0) and blue (1)."""
    background = tuple(round(255 + (blue - 255) * weight) for blue in (8, 69, 148))
    return f"background:rgb{background};color:{'#fff' if weight > DARK_WEIGHT else '#1a1a1a'}"
