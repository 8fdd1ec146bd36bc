"""The precision of a run: given by options, or by default what the device computes fastest in training.

An evaluation by itself is float32 unless asked otherwise, so that answers are the same everywhere. On a CPU with
bfloat16 units, bfloat16 autocast with frozen matrices held in bfloat16 is the fastest (docs/speed.md); on one
without them it is slower than float32.
"""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

import torch

from adapter_qa.config.options import IEEE, TrainingOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.messages import log_note

# Compute capability of the first NVIDIA GPUs with matrix units for the type: Ampere, Volta (CUDA Programming Guide).
BF16_CAPABILITY, FP16_CAPABILITY = (8, 0), (7, 0)
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"  # environment variable of oneDNN, which computes PyTorch's products in bfloat16
ISA_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
Autocast = Literal["no", "bf16", "fp16"]  # as accelerate names them
OVERRULE = "--bf16 or --fp16 decides otherwise"


class Precision(NamedTuple):
    """The precision of a run, and why.

    Attributes:
        autocast: the type of 16 bits that autocast computes in; "no" for float32.
        fp32_products: how products of float32 matrices are computed on a CPU: "ieee" or "bf16".
    """

    autocast: Autocast
    fp32_products: str
    reason: str


def cpu_bf16_units() -> str | None:
    """Return the instructions by which this CPU multiplies bfloat16 matrices; None if it has none or must not use them.

    AMX multiplies tiles; avx512_bf16 has dot products of pairs, at about twice the rate of float32.
    """
    if os.environ.get(ISA_LIMIT, "").upper() in ISA_WITHOUT_BF16:
        return None
    if torch.cpu._is_amx_tile_supported():  # noqa: SLF001, there is no public function
        return "AMX"
    return "AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else None  # noqa: SLF001


def choose_precision(options: TrainingOptions, cpu_units: str | None) -> Precision:
    """Choose the precision of the options, or by default the fastest of the device.

    `cpu_units` is the result of `cpu_bf16_units`.

    Raises:
        UserError: if the device cannot compute --fp32_products bf16.
    """
    accelerated = is_accelerated(options)
    products = options.fp32_products or IEEE
    if products != IEEE and accelerated:
        raise UserError(f"--fp32_products {products}: is for CPUs; on a GPU give --bf16 True or --tf32 True, or {IEEE}")
    if products != IEEE and cpu_units is None:
        raise UserError(f"--fp32_products {products}: this CPU has no bfloat16 units to use; give {IEEE}")
    if options.bf16 is not None or options.fp16 is not None:
        if options.fp16 and not accelerated:
            log_note(["--fp16 needs an accelerator; on the CPU the run is in float32"])
            return Precision("no", products, "--fp16 needs an accelerator")
        given = [f"--{name} {value}" for name in ("bf16", "fp16") if (value := vars(options)[name]) is not None]
        autocast: Autocast = "bf16" if options.bf16 else "fp16" if options.fp16 else "no"
        return Precision(autocast, products, f"given by {' '.join(given)}")
    if not options.do_train:
        return Precision("no", products, f"the default of an evaluation by itself; {OVERRULE}")
    if not accelerated:
        if options.fp32_products is not None:
            return Precision("no", products, f"given by --fp32_products {products}")
        if options.deepspeed is not None:
            return Precision("no", IEEE, "the default of DeepSpeed on a CPU")
        if cpu_units is None:
            return Precision("no", IEEE, "this CPU has no bfloat16 units to use")
        return Precision("bf16", IEEE, f"this CPU has {cpu_units}; --bf16 False for float32")
    if not torch.cuda.is_available():
        return Precision("no", IEEE, "the default on this device")
    capability, name = torch.cuda.get_device_capability(), torch.cuda.get_device_name()
    if capability < FP16_CAPABILITY:
        return Precision("no", IEEE, f"{name} has no matrix units for 16 bits; {OVERRULE}")
    autocast = "bf16" if capability >= BF16_CAPABILITY else "fp16"
    return Precision(autocast, IEEE, f"{name} computes it in hardware; {OVERRULE}")


def choose_fast_step(options: TrainingOptions) -> bool:
    """Return whether --fast_step is asked for, or by default whether the run is on a CPU and nothing is against it.

    Raises:
        UserError: if --fast_step True is given on a GPU.
    """
    if is_accelerated(options):
        if options.fast_step:
            raise UserError("--fast_step True: is for CPUs; leave it out, or give --use_cpu True")
        return False
    if options.fast_step is None:
        return options.deepspeed is None and not options.compiles
    return options.fast_step


def is_accelerated(options: TrainingOptions) -> bool:
    """Return whether the run is on an accelerator; Apple's MPS is not used."""
    return torch.accelerator.is_available() and not (options.use_cpu or torch.backends.mps.is_available())


def use_fp32_products(products: str) -> None:
    """Let the CPU compute products of float32 matrices as `Precision.fp32_products` says, from now on."""
    torch.backends.mkldnn.matmul.fp32_precision = products  # type: ignore[attr-defined]  # the stubs lack it
