"""Compare complete runs: an earlier version of this project, ours in several precisions, and the library's run_qa.py.

Every variant runs the same setup with the same data, model, seed and number of steps, as a process of its own. In a
round each variant runs once. The first steps (--warm_up) do not count: the speed of training is that of the steps
after them, from the end of one step to the end of another. The speed of an evaluation is that of the whole loop from
the first batch to the last logits. Batches of all variants of ours hold the same windows; those of run_qa.py are other
windows of the same data, so ratios compare useful tokens per second. A ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fusion_training import useful_multiply_adds
from measuring import BF16_PRODUCTS, bert_config, matrix_rate
from transformers import AutoConfig, AutoTokenizer, BertForMaskedLM

BENCHMARKS = Path(__file__).resolve().parent
SCRIPT = BENCHMARKS.parent / "run_qa_adapter.py"
# Options of all scripts.
COMMON_OPTIONS = [
    "--learning_rate", "1e-4", "--seed", "42", "--max_seq_length", "384", "--doc_stride", "128",
    "--adapter_config", "seq_bn", "--save_strategy", "no", "--eval_strategy", "no", "--report_to", "none",
    "--disable_tqdm", "True",
]  # fmt: skip
# As `fusion_training.measure_training` and `timed_run.set_up_fusion` have it.
FUSION_OPTIONS = [
    "--random_init", "True", "--madx2", "True", "--adapter_non_linearity", "gelu", "--load_lang_adapter", "new",
    "--lang_adapter_non_linearity", "gelu", "--fuse_adapters", "qa=new", "ner=new",
]  # fmt: skip
TITLES = {
    "adapter": "QA adapter",
    "fusion": "fusion",
    "full": "full fine-tuning",
    "evaluation": "evaluation alone",  # of a QA adapter
}
VARIANTS = ("before", "float32", "products", "bf16", "peer", "peer_bf16")
PARTS = {  # of a training step: words in the names of their operators; the first match counts
    "optimizer and clipping": ("adam", "foreach", "Optimizer.", "zero_grad", "linalg_vector_norm"),
    "attention": ("bmm", "scaled_dot_product", "softmax", "matmul", "einsum"),
    "dropout": ("bernoulli", "dropout", "random_", "rand"),
    "norms and GELU": ("layer_norm", "gelu", "tanh", "erf"),
    "linear layers": ("addmm", "aten::mm", "linear", "Addmm", "gemm"),
    "compiled kernels": ("cpp_fused", "triton"),
    "casts and copies": ("copy", "_to", "clone", "contiguous", "cat", "fill_", "zero"),
    "other arithmetic": ("aten::mul", "aten::add", "aten::sub", "aten::div", "aten::sum", "aten::where", "masked"),
}


class Variant(NamedTuple):
    """What runs a setup.

    Attributes:
        name: for people.
        script: of training.
        arithmetic: of its matrix products, as in `measuring.matrix_rate`.
        options: beyond those of the setup.
    """

    name: str
    script: Path
    arithmetic: str
    options: list[str]

    @property
    def is_peer(self) -> bool:
        """Whether the script is the library's."""
        return self.script.name == "run_qa.py"


class Run(NamedTuple):
    """What was measured of a run.

    Attributes:
        seconds: by part: training (without warm-up), evaluation, windows, answers; warm-up.
        lengths: by part (training, evaluation): tokens of each window that counts.
        operators: microseconds by operator.
    """

    seconds: dict[str, float]
    lengths: dict[str, list[int]]
    operators: dict[str, float]


def variants(options: argparse.Namespace) -> dict[str, Variant]:
    """Return the variants by their names for --variants; without it those that the options make possible."""
    table: dict[str, Variant] = {}
    if options.before is not None:
        script = Path(options.before).resolve() / SCRIPT.name
        table["before"] = Variant("before, float32", script, "float32", ["--bf16", "False"])
    ieee, products = (["--bf16", "False", "--fp32_products", name] for name in ("ieee", "bf16"))
    table["float32"] = Variant("ours, float32", SCRIPT, "float32", ieee)
    table["products"] = Variant(f"ours, {BF16_PRODUCTS}", SCRIPT, BF16_PRODUCTS, products)
    table["bf16"] = Variant("ours, bfloat16", SCRIPT, "bfloat16", ["--bf16", "True"])
    if options.peer is not None:
        script = Path(options.peer).resolve() / "run_qa.py"
        table["peer"] = Variant("run_qa.py, float32", script, "float32", ["--overwrite_cache"])
        table["peer_bf16"] = Variant("run_qa.py, bfloat16", script, "bfloat16", ["--overwrite_cache", "--bf16", "True"])
    return {name: table[name] for name in options.variants or table if name in table}


def measure_whole_runs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the setups of --setups with every variant; with run_qa.py its windows, answers and --help, too."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or random_model(folder / "model", options)
        chosen = variants(options)
        for setup in options.setups:
            kinds = [variant for variant in chosen.values() if setup != "evaluation" or not variant.is_peer]
            command = common_options(setup, model, options)
            if setup == "evaluation":
                command += ["--load_adapter", save_adapter(kinds[0], model, folder / "adapter", options)]
            runs: dict[str, list[Run]] = {variant.name: [] for variant in kinds}
            for _ in range(options.rounds):
                for variant in kinds:
                    runs[variant.name].append(measure_run(setup, variant, command, folder, options))
            rows += setup_rows(setup, kinds, runs, model, options)
        if "peer" in chosen:
            rows += help_rows(chosen["peer"], options.rounds)
    return rows


def measure_profiles(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure which share of a training step the kinds of operators take, for each setup and variant of --variants."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or random_model(folder / "model", options)
        for setup in options.setups:
            for variant in variants(options).values() if setup != "evaluation" else ():
                command = common_options(setup, model, options)
                run = measure_run(setup, variant, command, folder, options, profile_after=options.warm_up)
                total = sum(run.operators.values())
                shares = {part: 100 * value / total for part, value in parts_of_step(run.operators).items()}
                what = f"{TITLES[setup]}, {variant.name}, {total / 1e6 / options.steps:.2f} s a step"
                rows += [{"what": f"{what}: {part}", "figure": share, "unit": "%"} for part, share in shares.items()]
    return rows


def parts_of_step(operators: dict[str, float]) -> dict[str, float]:
    """Return the time of operators by the parts of a step, the longest first."""
    parts: dict[str, float] = {}
    for name, value in operators.items():
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), "other")
        parts[part] = parts.get(part, 0.0) + value
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def common_options(setup: str, model: str, options: argparse.Namespace) -> list[str]:
    """Return the options of a setup that all scripts have."""
    command = ["--model_name_or_path", model, "--per_device_eval_batch_size", str(options.batch_size)]
    command += ["--do_eval", "--validation_file", options.data, "--max_eval_samples", str(options.eval_samples)]
    command += ["--use_cpu", "True"] if options.device == "cpu" else []
    if setup == "evaluation":
        return [*command, "--report_to", "none", "--disable_tqdm", "True"]
    return [
        *command,
        *training_options(options.warm_up + options.steps, options),
        "--train_adapter",
        str(setup != "full"),
    ]


def training_options(steps: int, options: argparse.Namespace) -> list[str]:
    """Return the options of a training that all scripts have."""
    command = ["--do_train", "--train_file", options.data, "--max_train_samples", str(options.max_samples)]
    command += ["--max_steps", str(steps)]
    return [*command, "--per_device_train_batch_size", str(options.batch_size), *COMMON_OPTIONS]


def save_adapter(variant: Variant, model: str, folder: Path, options: argparse.Namespace) -> str:
    """Train a QA adapter for a step and return its folder: all versions load what an earlier one has saved."""
    command = [sys.executable, str(variant.script), *training_options(1, options), *variant.options]
    run_command([*command, "--model_name_or_path", model, "--output_dir", str(folder)], folder)
    return str(folder)


def measure_run(
    setup: str,
    variant: Variant,
    command: list[str],
    folder: Path,
    options: argparse.Namespace,
    profile_after: int | None = None,
) -> Run:
    """Run a variant of a setup and return what was measured of it."""
    output, target = folder / "run", folder / "times.json"
    settings = {"target": str(target), "fusion": setup == "fusion", "profile_after": profile_after}
    own = [*variant.options, "--output_dir", str(output)]
    if setup == "fusion" and not variant.is_peer:
        own += FUSION_OPTIONS
    wrapper = [sys.executable, str(BENCHMARKS / "timed_run.py"), json.dumps(settings), str(variant.script)]
    run_command([*options.launcher.split(), *wrapper, *command, *own], folder)
    record = json.loads(target.read_text())
    if not variant.is_peer:
        document = json.loads((output / "run.json").read_text())
        record["seconds"]["windows"] = document["times"]["windows"]
        record["seconds"]["answers"] = document["metrics"]["eval"]["eval_answers_runtime"]
    shutil.rmtree(output)
    return summarize(record, options.warm_up)


def summarize(record: dict[str, Any], warm_up: int) -> Run:
    """Return what was measured of a run from the attributes of its `timed_run.Timer`."""
    seconds, lengths = record["seconds"], {}
    if record["step_ends"]:
        seconds["warm-up"] = record["step_ends"][warm_up - 1]
        seconds["training"] = record["step_ends"][-1] - seconds["warm-up"]
        lengths["training"] = [size for step in record["step_lengths"][warm_up:] for size in step]
    for evaluation in record["evaluations"]:
        seconds["evaluation"], lengths["evaluation"] = evaluation["seconds"], evaluation["lengths"]
    return Run(seconds, lengths, record["operators"])


def setup_rows(
    setup: str, kinds: list[Variant], runs: dict[str, list[Run]], model: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row for each part and variant of a setup, and for parts of run_qa.py around the model."""
    config = AutoConfig.from_pretrained(model)
    width, layers = config.hidden_size, config.num_hidden_layers
    first = runs[kinds[0].name]
    tokens = int(statistics.mean(first[0].lengths["evaluation"]) * options.batch_size)
    rates = {
        kind: matrix_rate(options.device, kind, width, tokens)
        for kind in dict.fromkeys(kind.arithmetic for kind in kinds)
    }
    baselines = [variant.name for variant in kinds if variant.script != SCRIPT] or [kinds[0].name]
    rows = []
    for part in first[0].lengths:
        title = TITLES[setup] if part == "training" or setup == "evaluation" else f"evaluation inside {TITLES[setup]}"
        for variant in kinds:
            timed = runs[variant.name]
            lengths = timed[0].lengths[part]
            seconds = median_of(timed, part)
            work = f"{len(lengths)} windows of {statistics.mean(lengths):.0f} tokens"
            rate = rates[variant.arithmetic]
            useful = multiply_adds(setup, part, np.array(lengths), width, layers)
            rows.append({
                "what": f"{title}, {layers} layers of {width}, batch {options.batch_size}: {variant.name}",
                "figure": len(lengths) / seconds,
                "unit": "windows/s",
                "ratios": {name: token_ratio(timed, runs[name], part) for name in baselines},
                "work": work,
                "useful_tokens_per_second": sum(lengths) / seconds,
                "share_of_matrix_rate": useful / seconds / rate.multiply_adds,
                "matrix_rate": rate._asdict(),
                **({"warm_up_seconds": median_of(timed, "warm-up")} if part == "training" else {}),
            })  # fmt: skip
    for kind, rate in rates.items():
        what = f"matrix rate, {rate.threads} threads: {kind}, {' x '.join(map(str, rate.shape))}"
        rows.append({"what": what, "figure": 2 * rate.multiply_adds / 1e9, "unit": "GFLOP/s"})
    if any(variant.is_peer for variant in kinds):
        for part in ("windows", "answers"):
            rows += seconds_rows(part, {name: [run.seconds[part] for run in timed] for name, timed in runs.items()})
    return rows


def median_of(runs: list[Run], part: str) -> float:
    """Return the median seconds of a part."""
    return statistics.median(run.seconds[part] for run in runs)


def token_ratio(runs: list[Run], baseline: list[Run], part: str) -> float:
    """Return the median, over rounds, of useful tokens per second in relation to the baseline's."""
    ours, others = ([sum(run.lengths[part]) / run.seconds[part] for run in kind] for kind in (runs, baseline))
    return statistics.median(speed / other for speed, other in zip(ours, others, strict=True))


def multiply_adds(setup: str, part: str, lengths: np.ndarray, width: int, layers: int) -> float:
    """Return the multiply-adds that a part of a setup needs for windows, without padding.

    As `fusion_training.useful_multiply_adds` counts them for fusion. A QA adapter (reduction 16) has h²/8 a token and
    layer; it needs no gradients below the first layer's adapter, and of weights only its own. Full fine-tuning
    needs twice the arithmetic of the forward pass again.

    Args:
        setup: key of `TITLES`.
        part: training or evaluation.
        lengths: (windows,) tokens of each window.
        width: of the layers.
        layers: their number.
    """
    if setup == "fusion" and part == "training":
        return useful_multiply_adds(lengths, argparse.Namespace(hidden_size=width, layers=layers))
    linear, attention = 12 * width**2, 2 * lengths * width
    adapters = {"fusion": (layers - 1) * 11 / 8, "full": 0}.get(setup, layers / 8) * width**2
    cost = layers * (linear + attention) + adapters
    if part == "training" and setup == "full":
        cost = 3 * cost
    elif part == "training":
        cost = cost + (layers - 1) * (linear + 2 * attention) + (2 * layers - 1 / 2) / 8 * width**2
    total: np.ndarray = lengths * cost
    return float(total.sum())


def random_model(folder: Path, options: argparse.Namespace) -> str:
    """Save a BERT with random weights and the tokenizer of --tokenizer; return the folder."""
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = bert_config(len(tokenizer), options.hidden_size, options.layers)
    BertForMaskedLM(config).save_pretrained(folder)
    return str(folder)


def help_rows(peer: Variant, rounds: int) -> list[dict[str, Any]]:
    """Return how long --help of run_qa.py and of ours takes; the scripts take turns."""
    wrapper = [sys.executable, str(BENCHMARKS / "timed_run.py"), json.dumps({"target": os.devnull})]
    scripts = {"run_qa.py": [*wrapper, str(peer.script)], "ours": [sys.executable, str(SCRIPT)]}
    seconds: dict[str, list[float]] = {name: [] for name in scripts}
    for _ in range(rounds):
        for name, script in scripts.items():
            start = time.perf_counter()
            run_command([*script, "--help"], Path.cwd())
            seconds[name].append(time.perf_counter() - start)
    return seconds_rows("--help", seconds)


def seconds_rows(title: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row for each variant: its median seconds, and how many times faster it is than run_qa.py."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peer = next(value for name, value in medians.items() if name.startswith("run_qa.py"))
    return [
        {"what": f"{title}, seconds: {name}", "figure": value, "unit": "s", "times": f"{peer / value:.2f} x"}
        for name, value in medians.items()
    ]


def run_command(command: list[str], cache: Path) -> None:
    """Run a command without data that earlier runs have cached, and without output.

    Raises:
        SystemExit: if the command failed; the message has the end of its stderr.
    """
    environment = {
        **os.environ,
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
