"""Names of models and of saved adapters: folders, or ids of the hub such as org/name."""

from __future__ import annotations

import os
import re

# `os.path` is used because methods of `Path` raise an error if a name is too long for a file.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def model_problem(option: str, name: str) -> str | None:
    """Return why a name can be neither the folder of a model nor an id of the hub; None if it can."""
    if os.path.isfile(name):
        return f"{option} {name}: is a file; give the folder of a model"
    if not os.path.isdir(name) and not HUB_ID.fullmatch(name):
        return f"{option} {name}: no such folder; give a model folder or a hub id such as org/name"
    return None


def adapter_problem(option: str, name: str) -> str | None:
    """Return why a name can be neither the folder of saved adapters nor an id of the hub; None if it can."""
    if os.path.isfile(name):
        return f"{option} {name}: is a file; give its folder"
    if not os.path.isdir(name) and (not HUB_ID.fullmatch(name) or "/" not in name):
        return f"{option} {name}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
    return None
