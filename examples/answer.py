"""Answers a question with the model beside this file, without torch: python answer.py QUESTION CONTEXT

Needs numpy, onnxruntime and tokenizers. Prints an empty line where the model says that the context holds no answer.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers

if len(sys.argv) != 3:
    sys.exit(__doc__)
here = Path(__file__).resolve().parent
about = json.loads((here / "export.json").read_text(encoding="utf-8"))
windows, (question, context) = about["windows"], sys.argv[1:]
tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(windows["max_seq_length"], stride=windows["doc_stride"], strategy="only_second")
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
pair, best, answer, null = tokenizer.encode(question.lstrip(), context), -np.inf, "", np.inf
for window in [pair, *pair.overflowing]:  # more than one where the context is long
    fed = {"input_ids": window.ids, "attention_mask": window.attention_mask, "token_type_ids": window.type_ids}
    rows = session.run(None, {name: np.array([fed[name]], np.int64) for name in about["inputs"]})
    start, end, inside = rows[0][0], rows[1][0], np.array([part == 1 for part in window.sequence_ids])
    # One score for each pair of first and last token, both in the context, in this order and not too far apart.
    band = np.tri(len(start), k=windows["max_answer_length"] - 1, dtype=bool) & np.tri(len(start), dtype=bool).T
    scores = np.where(band & np.outer(inside, inside), start[:, None] + end, -np.inf)
    null = min(null, start[0] + end[0])
    if scores.max() > best:
        (first, last), best = np.unravel_index(scores.argmax(), scores.shape), scores.max()
        answer = context[window.offsets[first][0] : window.offsets[last][1]]
print("" if windows["version_2"] and null - best > windows["null_score_diff_threshold"] else answer)
