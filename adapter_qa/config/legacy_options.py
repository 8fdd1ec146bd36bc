"""Command lines for adapter-transformers 2.x, translated to the present options.

The old `run_qa_adapter.py` took its own options, those of adapter-transformers 2.1.1, and the training arguments of
transformers 4.8. Listed here are the options that have another name or no use now; all others are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

# Old name: new name, and what to add to the note for the user.
RENAMED = {
    "evaluation_strategy": ("eval_strategy", ""),
    "max_val_samples": ("max_eval_samples", "; it limits questions, not windows as in adapter-transformers 2.x"),
    "max_test_samples": ("max_predict_samples", "; it limits questions, not windows"),
    "no_cuda": ("use_cpu", ""),
    "per_gpu_train_batch_size": ("per_device_train_batch_size", ""),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size", ""),
    "push_to_hub_token": ("hub_token", ""),
    "torchdynamo": ("torch_compile_backend", ""),
}
# Old name: why it is not needed.
UNUSED = {
    "fp16_backend": "PyTorch's own mixed precision is used",
    "fp16_opt_level": "it was for apex; PyTorch's own mixed precision is used",
    "sharded_ddp": "FairScale is not supported; --deepspeed with a ZeRO-2 file shards the optimizer",
    "overwrite_cache": "windows are made in every run",
    "preprocessing_num_workers": "the tokenizer uses all cores",
    "use_auth_token": "the token of 'hf auth login' is used",
    "local_rank": "it is read from the environment, which torchrun and torch.distributed.launch set",
}
LEGACY_NAMES = {*RENAMED, *UNUSED}


def translate_legacy_args(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command line with the present option names, and a note for the user on each old name.

    Options without use are removed together with their values.
    """
    kept: list[str] = []
    notes: dict[str, None] = {}  # a set that keeps the order
    removing = False
    for word in words:
        if not word.startswith("--"):
            if not removing:
                kept.append(word)
            continue
        given, equals, value = word[2:].partition("=")
        name = given.replace("-", "_")
        removing = name in UNUSED
        if removing:
            notes[f"--{given} is not needed any more: {UNUSED[name]}"] = None
        elif name in RENAMED:
            new_name, remark = RENAMED[name]
            notes[f"--{given} is now --{new_name}{remark}"] = None
            kept.append(f"--{new_name}{equals}{value}")
        else:
            kept.append(word)
    return kept, list(notes)
