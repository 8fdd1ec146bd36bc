"""--push_to_hub: upload what a finished run saved, with its model card, in one commit.

The library's own push uploads the run's whole folder with its checkpoints at every save. This one uploads the saved
folder once. Where JSON files name local folders, the uploaded copies have only their names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from adapter_qa.core.distributed import is_main_process
from adapter_qa.core.errors import RunError, error_line
from adapter_qa.core.files import read_json, write_json
from adapter_qa.core.messages import print_main
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.runs.layout import CARD_FILE, FULL_MODEL_FILES, RUN_FILE, saved_folder
from adapter_qa.runs.model_card import public_name, write_card
from adapter_qa.runs.run_document import read_run_document
from adapter_qa.runs.run_record import RunRecord


@dataclass(frozen=True)
class HubTarget:
    """A repository OWNER/NAME on the hub. None stands for the stored token, the owner's default, the main branch."""

    repository: str
    token: str | None
    private: bool | None
    revision: str | None


def push_finished(record: RunRecord, target: HubTarget) -> None:
    """Push what a finished run saved, from the main process. A dry run pushes nothing.

    Raises:
        RunError: the hub cannot be reached, or refuses.
    """
    if record.folder is None or not is_main_process():
        return
    path = record.folder / RUN_FILE
    document = read_json(path)  # as it is: an earlier or later version may have written keys of its own
    saved = saved_folder(record.folder, document["saved"])
    if not (saved / CARD_FILE).is_file():  # an early version saved it; an existing card may have been edited
        run = read_run_document(record.folder)
        run.options["hub_model_id"] = target.repository
        write_card(saved, run)
    try:
        commit_url = _push(saved, target)
    except (OSError, ValueError) as error:  # no network, or the hub's answer
        reason = error_line(error, 300)
        raise RunError(
            f"{saved}: the run is finished and saved, but not pushed to {target.repository} ({reason}); "
            "the same command tries again"
        ) from error
    record.document.pushed = {"repository": target.repository, "commit": commit_url}
    write_json(path, document | {"pushed": record.document.pushed})
    print_main(f"{saved}: pushed, {commit_url}")


def _push(saved: Path, target: HubTarget) -> str:
    """Create the repository if it is missing, commit the folder to it and return the commit's address."""
    api = HfApi(token=target.token)
    repository = api.create_repo(target.repository, private=target.private, exist_ok=True).repo_id
    operations = [
        CommitOperationAdd(path.relative_to(saved).as_posix(), _public_content(path) or path)
        for path in _files_to_push(saved)
    ]
    message = f"Trained by {saved.name}"
    return str(api.create_commit(repository, operations, commit_message=message, revision=target.revision).commit_url)


def _files_to_push(saved: Path) -> list[Path]:
    """Return the files of a saved folder. A fully fine-tuned model is beside the run's files, which are left out."""
    if not (saved / FULL_FILE).is_file():
        return sorted(path for path in saved.rglob("*") if path.is_file())
    return sorted({path for pattern in (CARD_FILE, *FULL_MODEL_FILES) for path in saved.glob(pattern)})


def _public_content(path: Path) -> bytes | None:
    """Return a JSON file with local folders reduced to their names; None for other files."""
    if path.suffix != ".json" or path.name in ("tokenizer.json", "vocab.json"):
        return None
    return json.dumps(_public_value(read_json(path)), indent=2, ensure_ascii=False).encode("utf-8")


def _public_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public_value(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_public_value(entry) for entry in value]
    return public_name(value) if isinstance(value, str) and value.startswith("/") else value
