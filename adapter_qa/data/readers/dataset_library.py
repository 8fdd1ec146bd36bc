"""Records in data sets of the `datasets` library: folders, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.core.errors import UserError, error_line
from adapter_qa.core.files import resolved_name
from adapter_qa.data.readers.columnar import ROWS_AT_ONCE
from adapter_qa.data.readers.records import Record, TableRows, class_names

if TYPE_CHECKING:
    import datasets

SAVED_MARKS = ("dataset_dict.json", "state.json")  # in a folder of `datasets.save_to_disk`


def load_dataset(name: str, config: str | None, split: str) -> TableRows:
    """Load a split of a data set: a folder that `datasets` reads or has saved, or else a data set of the hub.

    Code of a data set never runs.

    Raises:
        UserError: the data set cannot be loaded.
    """
    import datasets  # takes seconds, and reading files does not need it

    what = f"dataset {name!r}, configuration {config!r}, split {split!r}"
    with _reported_load(what):
        saved = _saved_splits(name)
        if saved and split not in saved:
            raise UserError(f"{what}: cannot be loaded: its splits are {', '.join(saved)}")
        rows = saved[split] if saved else datasets.load_dataset(name, config, split=split)
    return TableRows(_dataset_records(rows), class_names(rows.features.to_dict()))


def dataset_source(name: str, config: str | None, split: str) -> dict[str, Any]:
    """Return where the records of `load_dataset` come from, for run.json: a folder as an absolute path."""
    return {"dataset": resolved_name(name), "config": config, "split": split}


def split_names(name: str, config: str | None) -> list[str]:
    """Return the names of the splits of a data set, which is as for `load_dataset`.

    Raises:
        UserError: the data set cannot be found.
    """
    import datasets

    with _reported_load(f"dataset {name!r}, configuration {config!r}"):
        return [*_saved_splits(name)] or list(datasets.get_dataset_split_names(name, config))


@contextmanager
def _reported_load(what: str) -> Iterator[None]:
    """Turn every exception of the `datasets` library into UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the library documents no closed set: network, hub, parser and value errors
        raise UserError(f"{what}: cannot be loaded: {type(error).__name__}: {error_line(error)}") from error


def _saved_splits(name: str) -> dict[str, datasets.Dataset]:
    """Return the splits in a folder of `save_to_disk`; none if it is another folder or a data set of the hub.

    Raises:
        UserError: the name can be neither a folder nor an id of the hub.
    """
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS

    folder = Path(name)
    if folder.is_file():
        raise UserError(
            f"--dataset_name {name}: is a file; give it with --train_file, --validation_file or --test_file"
        )
    if folder.is_dir():
        if not any((folder / mark).is_file() for mark in SAVED_MARKS):
            return {}
        saved = datasets.load_from_disk(name)
        return dict(saved) if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"--dataset_name {name}: no such folder; give a folder or an id of the hub, OWNER/NAME")
    if name in FORMATS:  # `datasets` would read such files in the current folder, pickles too
        raise UserError(f"--dataset_name {name}: is a format of files; give a folder or an id of the hub, OWNER/NAME")
    return {}


def _dataset_records(rows: datasets.Dataset) -> Iterator[Record]:
    number = 0
    for table in rows.with_format("arrow").iter(ROWS_AT_ONCE):
        for fields in table.to_pylist():
            yield Record(f"row {number}", fields)
            number += 1
