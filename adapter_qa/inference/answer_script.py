"""Write `answer.py` of an exported model: one file made of the modules that find the answers everywhere else."""

from __future__ import annotations

import ast
import inspect

from adapter_qa.core import errors
from adapter_qa.data import answering_options, answers, labels, pair_tokenizer, questions, spans, windows
from adapter_qa.inference import answer_text, ask_settings, export_layout, exported_model

# Each part stands before those that use it.
PARTS = (
    errors,
    labels,
    questions,
    pair_tokenizer,
    windows,
    answering_options,
    answers,
    spans,
    answer_text,
    ask_settings,
    export_layout,
    exported_model,
)
HEAD = '''\
"""Answer a question with the model in this folder: python answer.py QUESTION CONTEXT [--n_best N] [--json]

Prints the answer, or an empty line if the context contains none. Needs numpy, onnxruntime and tokenizers. From Python:
ExportedModel.load(folder).answer(question, context).
Written by export_qa.py from modules of adapter_qa.
"""

from __future__ import annotations
'''


def answer_script() -> str:
    """Return the source of `answer.py`: the parts one after the other, with their external imports at the top."""
    imports: set[str] = set()
    parts = []
    for part in PARTS:
        source = inspect.getsource(part)
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.Expr | ast.Import | ast.ImportFrom):  # docstring and imports
                for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                    lines[number] = ""
            if isinstance(node, ast.Import):
                imports.add(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith(("adapter_qa.", "__future__")):
                imports |= {f"from {node.module} import {ast.unparse(alias)}" for alias in node.names}
        summary = str(inspect.getdoc(part)).split("\n")[0]
        code = "\n".join(lines).strip()
        parts.append(f"# {part.__name__}: {summary}\n\n{code}")
    return "\n\n\n".join([HEAD + "\n" + "\n".join(sorted(imports)), *parts]) + "\n"
