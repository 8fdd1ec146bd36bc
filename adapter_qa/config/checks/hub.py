"""The problems of --push_to_hub."""

from __future__ import annotations

from adapter_qa.config.options import TrainingOptions


def hub_problems(training: TrainingOptions) -> list[str]:
    """Return what would make --push_to_hub fail at the end of the run."""
    if not training.push_to_hub:
        return []
    from huggingface_hub import constants, get_token  # imported here because it is slow
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    problems = []
    if not training.do_train:
        problems.append("--push_to_hub: only what a run trains is saved and pushed; add --do_train")
    if training.hub_model_id is None:
        problems.append("--push_to_hub needs --hub_model_id, the repository to push to, e.g. name/qa-pt")
    elif "/" not in training.hub_model_id:
        problems.append(f"--hub_model_id {training.hub_model_id}: write OWNER/NAME; the model card loads it by this id")
    else:
        try:
            validate_repo_id(training.hub_model_id)
        except HFValidationError as error:
            problems.append(f"--hub_model_id {training.hub_model_id}: {error}")
    if not (training.hub_token or get_token()):
        problems.append("--push_to_hub needs a token: run hf auth login, or set HF_TOKEN, or give --hub_token")
    if constants.HF_HUB_OFFLINE:
        problems.append("--push_to_hub: HF_HUB_OFFLINE is set; unset it, or push when the run is finished")
    return problems
