"""Find saved folders: in the folder of a run, or on the hub. Nothing heavy is imported for local ones."""

from __future__ import annotations

import os
from pathlib import Path

from adapter_qa.config.folder_names import adapter_problem
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import TEMPORARY_SUFFIX, read_json
from adapter_qa.models.base_config import holds_adapters
from adapter_qa.models.file_names import ADAPTER_CONFIG, FUSION_CONFIG, SETUP_FILE


def is_adapter_dir(folder: Path) -> bool:
    """Return whether a folder is itself a saved adapter, fusion or setup."""
    return any((folder / name).is_file() for name in (SETUP_FILE, ADAPTER_CONFIG, FUSION_CONFIG))


def adapter_dirs(folder: Path) -> list[Path]:
    """Return the saved folders that a folder stands for: itself, or those in a run's folder."""
    if is_adapter_dir(folder):
        return [folder]
    return sorted(
        match  # a killed run leaves half-written folders behind
        for match in folder.glob("adapters-*")
        if is_adapter_dir(match) and not match.name.endswith(TEMPORARY_SUFFIX)
    )


def find_folder(option: str, path: str) -> Path:
    """Return the saved folder of an option: itself, the only `adapters-*` in a run's folder, or a hub id to download.

    Raises:
        UserError: if there is no such folder, or it holds no saved adapters, or several.
    """
    problem = adapter_problem(option, path)
    if problem is not None:
        raise UserError(problem)
    folder = Path(path) if os.path.isdir(path) else _download(option, path)
    matches = adapter_dirs(folder)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"{option} {path}: holds {', '.join(match.name for match in matches)}; give one of them")
    if any(folder.glob(f"*/{ADAPTER_CONFIG}")):  # adapters saved by a script that used adapter-transformers 2.x
        return folder
    if (folder / "config.json").is_file() and holds_adapters(read_json(folder / "config.json")):
        raise UserError(
            f"{option} {path}: is a model saved together with its adapters, which cannot be loaded from it; give a "
            "folder that save_adapter, save_adapter_fusion and save_head wrote in the program that trained them"
        )
    raise UserError(
        f"{option} {path}: holds no {SETUP_FILE} or {ADAPTER_CONFIG}; give the adapters-<task> folder of a finished run"
    )


def _download(option: str, hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # late: slow

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{option} {hub_id}: no such folder, and the hub does not provide it ({reason})") from error
