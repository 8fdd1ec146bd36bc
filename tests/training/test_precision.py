"""The precision of a run, by options and device (precision.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scripts import run_main
from support.trainers import make_trainer

import run_qa_adapter
from adapter_qa.config.options import TrainingOptions
from adapter_qa.core.errors import UserError
from adapter_qa.models.fast_step import ByteDropout
from adapter_qa.training import precision, training_args
from adapter_qa.training.precision import choose_fast_step, choose_precision, cpu_bf16_units
from adapter_qa.training.training_args import resolve_training_args

AMX = "AMX"


def options(**values: Any) -> TrainingOptions:
    return TrainingOptions(output_dir="out", report_to=[], **{"do_train": True, "use_cpu": True, **values})


@pytest.mark.parametrize(
    ("values", "units", "bf16", "products", "reason"),
    [
        ({}, AMX, True, "ieee", "this CPU has AMX; --bf16 False for float32"),
        ({}, None, False, "ieee", "this CPU has no bfloat16 units to use"),
        ({"deepspeed": "ds_config_zero2.json"}, AMX, False, "ieee", "the default of DeepSpeed on a CPU"),
        ({"bf16": False}, AMX, False, "ieee", "given by --bf16 False"),
        ({"bf16": True}, None, True, "ieee", "given by --bf16 True"),
        ({"fp32_products": "bf16"}, AMX, False, "bf16", "given by --fp32_products bf16"),
        ({"fp32_products": "ieee"}, AMX, False, "ieee", "given by --fp32_products ieee"),
        ({"bf16": True, "fp32_products": "bf16"}, AMX, True, "bf16", "given by --bf16 True"),
        ({"do_train": False}, AMX, False, "ieee",
         "the default of an evaluation by itself; --bf16 or --fp16 decides otherwise"),
        ({"do_train": False, "bf16": True}, AMX, True, "ieee", "given by --bf16 True"),
        ({"do_train": False, "fp32_products": "bf16"}, AMX, False, "bf16",
         "the default of an evaluation by itself; --bf16 or --fp16 decides otherwise"),
    ],
)  # fmt: skip
def test_precision_on_a_cpu(values: dict[str, Any], units: str | None, bf16: bool, products: str, reason: str) -> None:
    assert choose_precision(options(**values), units) == ("bf16" if bf16 else "no", products, reason)


def test_products_in_bfloat16_need_a_cpu_with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="this CPU has no bfloat16 units to use; give ieee"):
        choose_precision(options(fp32_products="bf16"), None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(UserError, match="is for CPUs; on a GPU give --bf16 True or --tf32 True, or ieee"):
        choose_precision(options(use_cpu=False, fp32_products="bf16"), AMX)


def test_fast_step_is_the_default_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_fast_step(options())
    assert not choose_fast_step(options(fast_step=False))
    assert not choose_fast_step(options(deepspeed="ds_config_zero2.json"))
    for compiled in ({"torch_compile": True}, {"torch_compile_backend": "inductor"}, {"torch_compile_mode": "default"}):
        assert not choose_fast_step(options(**compiled))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert choose_fast_step(options())
    assert not choose_fast_step(options(use_cpu=False))
    with pytest.raises(UserError, match="--fast_step True: is for CPUs; leave it out, or give --use_cpu True"):
        choose_fast_step(options(use_cpu=False, fast_step=True))


@pytest.mark.parametrize(
    ("limit", "amx", "avx", "units"),
    [
        (None, True, True, "AMX"),
        (None, False, True, "AVX-512 BF16"),
        (None, False, False, None),
        ("AVX512_CORE", True, True, None),
        ("avx2", False, True, None),
        ("AVX512_CORE_AMX", True, True, "AMX"),
    ],
)
def test_units_of_a_cpu(
    limit: str | None, amx: bool, avx: bool, units: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(precision.ISA_LIMIT, raising=False)
    if limit is not None:
        monkeypatch.setenv(precision.ISA_LIMIT, limit)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert cpu_bf16_units() == units


def test_products_of_a_run_are_set_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_args, "cpu_bf16_units", lambda: AMX)
    resolve_training_args(options(fp32_products="bf16"))
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    resolve_training_args(options(bf16=False))
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # type: ignore[attr-defined]


@pytest.mark.parametrize("fast_step", [None, True, False])
def test_trainer_has_the_fast_step_unless_it_is_switched_off(
    fast_step: bool | None, tiny_bert: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], fast_step=fast_step)
    kinds = {type(module) for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert kinds == {torch.nn.Dropout if fast_step is False else ByteDropout}


def test_default_of_a_cpu_with_units_trains_in_bfloat16(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_args, "cpu_bf16_units", lambda: AMX)
    trainer = make_trainer(tiny_bert, tmp_path, [])
    dtypes = {weight.dtype for weight in trainer.model.parameters() if not weight.requires_grad}
    assert dtypes == {torch.bfloat16, torch.float32}  # matrices of the base; embeddings, norms and adapters
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.float32}
    batch = next(iter(trainer.get_train_dataloader()))
    with trainer.compute_loss_context_manager():
        _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.start_logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "option", "problem"),
    [
        ({"position_embedding_type": "relative_key"}, "--fast_step", "{base} has no fast step; leave it out"),
        (
            {"model_type": "albert"},
            "--gradient_checkpointing",
            "the library has none for albert; leave it out, and for less memory give --tokens_per_batch",
        ),
    ],
)
def test_what_the_encoder_lacks_is_refused(
    change: dict[str, str], option: str, problem: str, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    argv = ["--model_name_or_path", base, "--do_train", "--train_file", squad_files[0], "--max_seq_length", 64]
    argv += ["--doc_stride", 16, "--output_dir", tmp_path / "run", "--random_init", "True", option, "True"]
    process = run_main(run_qa_adapter.main, *argv)
    assert (process.returncode, process.stderr) == (2, f"error: {option} True: {problem.format(base=base)}\n")
    assert not (tmp_path / "run").exists()
