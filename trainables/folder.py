"""A folder of files that appears on disk whole or not at all, and stays there through a power cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that has no room: somebody may make some."""


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files (by relative name, `model/model.json`) as the folder `path`, replacing one that is there.

    They are written and synced under a temporary sibling, which then takes the name. Only a process that dies
    leaves the sibling behind; `temporary_siblings` finds it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            file = temporary / name
            file.parent.mkdir(exist_ok=True)
            with file.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for folder in {(temporary / name).parent for name in files} | {temporary}:
            _sync(folder)
        if path.exists():
            shutil.rmtree(path)  # a rename cannot replace a folder that holds files
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def temporary_siblings(parent: Path, stem: str) -> list[Path]:
    """What dead writers of folders named `stem...` left behind in `parent`."""
    return sorted(parent.glob(f".{stem}*"))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
