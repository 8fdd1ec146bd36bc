"""Command lines of 2021 in today's words.

The options are those of the 2021 `run_qa_adapter.py`: its own, adapter-transformers 2.1.1's and the training arguments
of transformers 4.8. Only what has another name or no use today is listed; the rest is understood as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

RENAMED = {
    "evaluation_strategy": ("eval_strategy", ""),
    "max_val_samples": (
        "max_eval_samples",
        "; it counts questions, whose windows are all kept (2021 cut windows, too)",
    ),
    "max_test_samples": ("max_predict_samples", "; it counts questions, whose windows are all kept"),
    "no_cuda": ("use_cpu", ""),
    "per_gpu_train_batch_size": ("per_device_train_batch_size", ""),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size", ""),
}
UNUSED = {
    "fp16_backend": "mixed precision is PyTorch's own",
    "fp16_opt_level": "it was for apex; mixed precision is PyTorch's own",
    "sharded_ddp": "FairScale is gone; --deepspeed with a ZeRO-2 file shards the optimizer",
    "overwrite_cache": "windows are made anew in every run",
    "preprocessing_num_workers": "the tokenizer uses all cores by itself",
    "use_auth_token": "the token of 'hf auth login' is used by itself",
    "local_rank": "the launcher's environment says it, torchrun's as well as torch.distributed.launch's",
}
LEGACY_NAMES = frozenset((*RENAMED, *UNUSED))


def translate_legacy_args(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Old spellings replaced, options without use taken out with their values.

    Args:
        words: of a command line.

    Returns:
        The words of today's command line, and one line for each old spelling, for the user.
    """
    kept: list[str] = []
    notes: dict[str, None] = {}  # in order, each once
    dropping = False
    for word in words:
        if not word.startswith("--"):
            if not dropping:
                kept.append(word)
            continue
        given, equals, value = word[2:].partition("=")
        name = given.replace("-", "_")
        dropping = name in UNUSED
        if dropping:
            notes[f"--{given} is not needed any more: {UNUSED[name]}"] = None
        elif name in RENAMED:
            new, remark = RENAMED[name]
            notes[f"--{given} is --{new} now{remark}"] = None
            kept.append(f"--{new}{equals}{value}")
        else:
            kept.append(word)
    return kept, list(notes)
