"""--push_to_hub: what a finished run saved, and its card, in one commit to a repository on the hub.

The library's own push takes the run's whole folder, checkpoints and all, at every save; here the saved folder goes,
once. Its JSON files name the base model by the folder it lay in; of that the pushed copy has the name alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from adapter_qa.core.distributed import is_main_process
from adapter_qa.core.errors import RunError
from adapter_qa.core.files import read_json, write_json
from adapter_qa.core.messages import print_main
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.runs.model_card import CARD_FILE, public_name, write_card
from adapter_qa.runs.run_record import RUN_FILE, RunRecord
from adapter_qa.training.training_args import TrainerArguments

# Of a fully fine-tuned run's folder; an adapters-<task> folder goes whole.
WHOLE_MODEL = (
    CARD_FILE, FULL_FILE, "config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer*.json",
    "special_tokens_map.json", "vocab.*", "merges.txt",
)  # fmt: skip


def push_finished(record: RunRecord, run: TrainerArguments) -> None:
    """Pushes what the finished run of a folder saved, where that is asked for; the first process does.

    Raises:
        RunFailure: the hub cannot be reached, or refuses.
    """
    if not run.push_at_end or record.folder is None or not is_main_process():
        return
    document = read_json(record.folder / RUN_FILE)
    saved = record.folder if (record.folder / FULL_FILE).is_file() else record.folder / Path(document["saved"]).name
    if not (saved / CARD_FILE).is_file():  # saved by an earlier version; one that is there may have been edited
        write_card(saved, document | {"options": document["options"] | {"hub_model_id": run.hub_model_id}})
    try:
        commit = push(saved, run)
    except (OSError, ValueError) as error:  # no network, and what the hub answers
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"{saved}: the run is finished and saved, but not pushed to {run.hub_model_id} ({reason}); "
            "the same command tries again"
        ) from error
    record.document["pushed"] = document["pushed"] = {"repository": run.hub_model_id, "commit": commit}
    write_json(record.folder / RUN_FILE, document)
    print_main(f"{saved}: pushed, {commit}")


def push(saved: Path, run: TrainerArguments) -> str:
    """Makes the repository, where there is none, and commits the folder to it.

    Returns:
        The commit's address.

    Raises:
        OSError, ValueError: it cannot be.
    """
    api = HfApi(token=run.hub_token)
    repository = api.create_repo(str(run.hub_model_id), private=run.hub_private_repo, exist_ok=True).repo_id
    operations = [
        CommitOperationAdd(path.relative_to(saved).as_posix(), public_content(path) or path)
        for path in files_to_push(saved)
    ]
    made = api.create_commit(
        repository, operations, commit_message=f"Trained by {saved.name}", revision=run.hub_revision
    )
    return made.commit_url


def files_to_push(saved: Path) -> list[Path]:
    """The files of a saved folder, without the run's that a fully fine-tuned model stands among."""
    if not (saved / FULL_FILE).is_file():
        return sorted(path for path in saved.rglob("*") if path.is_file())
    return sorted({path for pattern in WHOLE_MODEL for path in saved.glob(pattern)})


def public_content(path: Path) -> bytes | None:
    """Of a JSON file its text, folders of this machine shortened to their names; None for other files."""
    if path.suffix != ".json" or path.name in ("tokenizer.json", "vocab.json"):
        return None
    return json.dumps(_public(read_json(path)), indent=2, ensure_ascii=False).encode("utf-8")


def _public(value: Any) -> Any:
    """A JSON value with the names of folders in place of their paths."""
    if isinstance(value, dict):
        return {key: _public(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_public(one) for one in value]
    return public_name(value) if isinstance(value, str) and value.startswith("/") else value
