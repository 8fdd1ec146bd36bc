"""Test what the benchmarks compute from their measurements; nothing is timed here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForQuestionAnswering

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
bench_qa: Any = importlib.import_module("bench_qa")
measuring: Any = importlib.import_module("measuring")
whole_runs: Any = importlib.import_module("whole_runs")

WIDTH, LAYERS, WINDOWS, TOKENS = 64, 3, 2, 10


@pytest.mark.parametrize("setup", ["adapter", "full"])
def test_arithmetic_is_what_torch_counts(setup: str) -> None:
    config = BertConfig(
        vocab_size=99, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=4 * WIDTH
    )
    model = BertForQuestionAnswering._from_config(config, attn_implementation="eager")
    if setup == "adapter":
        adapters.init(model)
        model.add_adapter("qa", "seq_bn", set_active=True)
        model.train_adapter("qa")
    ids = torch.ones(WINDOWS, TOKENS, dtype=torch.long)
    positions = torch.zeros(WINDOWS, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        loss = model(input_ids=ids, start_positions=positions, end_positions=positions).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    head = WINDOWS * TOKENS * 2 * WIDTH
    lengths = np.full(WINDOWS, TOKENS)
    evaluation = whole_runs.multiply_adds(setup, "evaluation", lengths, WIDTH, LAYERS)
    assert evaluation == forward.get_total_flops() / 2 - head
    training = whole_runs.multiply_adds(setup, "training", lengths, WIDTH, LAYERS)
    assert training - evaluation == backward.get_total_flops() / 2 - 2 * head


def test_first_steps_do_not_count() -> None:
    record = {
        "step_ends": [5.0, 6.0, 8.0],
        "step_lengths": [[9, 9], [3, 4], [5, 6]],
        "evaluations": [{"seconds": 2.0, "lengths": [7]}],
        "seconds": {},
        "operators": {},
    }
    run = whole_runs.summarize(record, 1)
    assert run.lengths == {"training": [3, 4, 5, 6], "evaluation": [7]}
    assert run.seconds == {"warm-up": 5.0, "training": 3.0, "evaluation": 2.0}


def test_ratio_is_the_median_of_rounds_in_tokens() -> None:
    ours = [whole_runs.Run({"training": seconds}, {"training": [4, 8]}, {}) for seconds in (1.0, 2.0, 3.0)]
    other = [whole_runs.Run({"training": seconds}, {"training": [6]}, {}) for seconds in (1.0, 8.0, 4.5)]
    assert whole_runs.token_ratio(ours, other, "training") == 3.0  # of 2, 8 and 3


def test_operators_are_grouped_by_the_parts_of_a_step() -> None:
    names = {
        "linear layers": ["aten::addmm", "aten::mm", "mkldnn::_linear_pointwise", "aten::linear"],
        "attention": ["aten::bmm", "aten::_softmax_backward_data", "aten::_scaled_dot_product_flash_attention_for_cpu"],
        "dropout": ["aten::bernoulli_", "aten::native_dropout"],
        "norms and GELU": ["aten::native_layer_norm_backward", "aten::gelu"],
        "optimizer and clipping": ["aten::_fused_adamw_", "aten::_foreach_mul_", "Optimizer.step#AdamW.step"],
        "casts and copies": ["aten::copy_", "aten::_to_copy"],
        "other": ["aten::embedding"],
    }
    operators = {name: float(index + 1) for index, part in enumerate(names) for name in names[part]}
    expected = {part: float((index + 1) * len(names[part])) for index, part in enumerate(names)}
    assert whole_runs.parts_of_step(operators) == expected


def test_rate_leaves_the_precision_as_it_was() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]  # made at run time
    rate = measuring.product_rate("cpu", measuring.BF16_PRODUCTS, (4, 4, 4))
    assert rate > 0
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]


def test_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("before, float32", "run_qa.py, float32", "run_qa.py, bfloat16")
    row = {
        "what": "evaluation inside full fine-tuning, 24 layers of 1024, batch 16: ours, float32 with bfloat16 products",
        "figure": 1234.5,
        "unit": "windows/s",
        "work": "160 windows of 178 tokens",
        "ratios": dict.fromkeys(names, 12.345),
        "share_of_matrix_rate": 0.5,
        "warm_up_seconds": 2.0,
    }
    bench_qa.print_rows([row])
    title, *lines = capsys.readouterr().out.strip().splitlines()
    assert title.endswith("batch 16: 160 windows of 178 tokens")
    assert "12.35 x run_qa.py, bfloat16; 50.0% of the matrix rate; warm-up 2.0 s" in " ".join(map(str.strip, lines))
    assert max(map(len, lines)) <= 80
