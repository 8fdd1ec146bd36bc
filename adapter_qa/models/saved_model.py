"""Find a saved model that answers questions: its files, metadata and adapters. No weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.messages import log_note
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import has_qa_head, read_base_config
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.models.metadata import Origin, RunMetadata, read_metadata
from adapter_qa.models.saved_adapters import read_setup
from adapter_qa.models.saved_folders import adapter_dirs, find_folder
from adapter_qa.models.setup_decisions import setup_for_inference
from adapter_qa.models.setup_notes import setup_notes


@dataclass(frozen=True)
class SavedModel:
    """The files of a saved model.

    Attributes:
        folder: folder of the adapters or of the fully fine-tuned model; for a model on the hub, its id.
        metadata: what the run recorded there; all defaults for models of other programs.
        base: the base model, or the fully fine-tuned model itself.
        base_config: the content of its config.json.
        has_adapters: False after full fine-tuning.
    """

    folder: Path
    metadata: RunMetadata
    base: ModelOptions
    base_config: dict[str, Any]
    has_adapters: bool


def find_run(run: Path, base_model: str | None) -> SavedModel:
    """Find the model that a run saved, with the given base model or the recorded one.

    Raises:
        UserError: a file is missing or damaged, or the base model is not known or not there.
    """
    has_adapters = not (run / FULL_FILE).is_file()
    if not has_adapters and base_model is not None:
        raise UserError(
            f"--model_name_or_path {base_model}: {run} is fully fine-tuned and has its own weights; leave it out"
        )
    folder = find_folder("RUN", str(run)) if has_adapters else run
    metadata = read_setup(folder).metadata if has_adapters else read_metadata(folder / FULL_FILE)
    base = _find_base(folder, metadata, base_model)
    return SavedModel(folder, metadata, base, read_base_config(base, can_be_random=False), has_adapters)


def find_full_model(name: str) -> SavedModel:
    """Find a fully fine-tuned model, from this project or any other; without a head its answers would be random.

    Raises:
        UserError: there is no such model, it holds adapters, or it was not trained to answer questions.
    """
    folder = Path(name)
    if adapter_dirs(folder):
        raise UserError(f"--base {name}: holds adapters; give it as RUN, without --base")
    metadata = read_metadata(folder / FULL_FILE) if (folder / FULL_FILE).is_file() else RunMetadata()
    base = ModelOptions(name)
    config = read_base_config(base, "--base", can_be_random=False)
    if not has_qa_head(config):
        raise UserError(
            f"--base {name}: was not trained to answer questions (architectures in its config.json: "
            f"{config.get('architectures')}); give a model fine-tuned on questions, or a run as RUN"
        )
    return SavedModel(folder, metadata, base, config, has_adapters=False)


def find_adapters(saved: SavedModel, language_adapter: str | None) -> AdapterSetup | None:
    """Return the adapters of a saved model, with another language adapter if one is given; None after full fine-tuning.

    Raises:
        UserError: the adapters cannot answer questions, or the language adapter cannot be used.
    """
    if not saved.has_adapters:
        if language_adapter is not None:
            raise UserError(
                f"--load_lang_adapter {language_adapter}: {saved.folder} is fully fine-tuned and takes no adapters"
            )
        return None
    setup = setup_for_inference("RUN", str(saved.folder), saved.base_config, language_adapter)
    if not setup.loads_saved_head:
        head = setup.saved.head if setup.saved is not None else None
        if head is not None and head.flexible is not None:
            raise UserError(
                f"{saved.folder}: cannot answer questions: {head.why_not_used}; train a head with run_qa_adapter.py "
                f"--load_adapter {saved.folder} --do_train"
            )
        content = f"a head of {head.model_class}" if head is not None else "no head"
        raise UserError(f"{saved.folder}: was not trained to answer questions; it holds {content}")
    log_note(setup_notes(setup))
    return setup


def _find_base(folder: Path, metadata: RunMetadata, base_model: str | None) -> ModelOptions:
    """Return the given base model or the recorded one."""
    name = base_model or Origin(folder, metadata).base_name
    if name is None:
        raise UserError(f"{folder}: does not name the base model of its adapters; give --model_name_or_path")
    for kind, recorded in (("base model", None if base_model else name), ("tokenizer", metadata.tokenizer)):
        if recorded is not None and not Path(recorded).is_dir():
            if kind == "base model" and Path(recorded).is_absolute():
                raise UserError(f"{folder}: its base model is no longer in {recorded}; give --model_name_or_path")
            log_note([f"{folder}: names {recorded} as its {kind}; it is downloaded from the hub if it is not cached"])
    return ModelOptions(
        name,
        tokenizer_name=metadata.tokenizer,
        model_revision=metadata.base_model.revision or "main",
        do_lower_case=metadata.do_lower_case,
        strip_accents=metadata.strip_accents,
    )
