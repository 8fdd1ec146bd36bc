"""Archives that contain SQuAD files, as the tests need them."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Pack = Callable[..., Path]
LINK_TARGET = "pt/squad-train-v1.1.json"


def write_tar(path: Path, members: list[tuple[str, bytes]], links: tuple[tuple[str, bytes], ...] = ()) -> Path:
    """Write a gzipped tar archive with files and links (name, type), and return its path."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, link_type in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = link_type, LINK_TARGET
            archive.addfile(info)
    return path


def write_zip(path: Path, members: list[tuple[str, bytes]], links: tuple[tuple[str, bytes], ...] = ()) -> Path:
    """Write a zip archive with files and symbolic links, and return its path."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        for name, _ in links:
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, LINK_TARGET)
    return path


archive_formats = pytest.mark.parametrize(
    ("pack", "name"), [(write_tar, "squad.tar.gz"), (write_tar, "squad.tgz"), (write_zip, "squad.zip")]
)
