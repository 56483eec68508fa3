"""Which datasets are on disk, how large they are, and how they go."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from trainables.data.lock import locked

_FOLDER = re.compile(r"(?P<name>[a-z0-9_]+)-(?P<digest>[0-9a-f]{16})(?P<partial>\.partial)?")


@final
@dataclass(frozen=True, slots=True)
class Stored:
    """One dataset's folder."""

    name: str
    digest: str
    folder: Path
    size: int
    """Bytes."""
    config: Mapping[str, Any] | None
    """As plain data; None while the dataset is unfinished."""

    @property
    def finished(self) -> bool:
        """False: it is being made, or its making was interrupted and will be continued."""
        return self.config is not None


def stored(root: Path) -> list[Stored]:
    """The datasets under `root`, by name and digest. Their content is not checked: loading does that."""
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        match = _FOLDER.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        try:
            config = None if match["partial"] else json.loads((folder / "header.json").read_text())["config"]
        except (OSError, ValueError, KeyError, TypeError):
            config = None  # spoiled: loading makes it again
        size = sum(file.stat().st_size for file in folder.iterdir())
        found.append(Stored(match["name"], match["digest"], folder, size, config))
    return found


def remove(dataset: Stored) -> None:
    """Delete a dataset's folder. Trials that have it open keep what they mapped.

    Raises:
        BlockingIOError: somebody is making it.
        OSError: the folder cannot be deleted.
    """
    with locked(dataset.folder.with_name(f"{dataset.name}-{dataset.digest}.lock"), wait=False):
        shutil.rmtree(dataset.folder)
