"""Whether the disk that takes checkpoints has room for another trial."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Usage(Protocol):
    """What a disk holds, in bytes."""

    @property
    def total(self) -> int:
        """In all."""

    @property
    def free(self) -> int:
        """Not taken yet."""


@final
@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of a folder, which need not be there yet, and how much of it must be free for trials to begin.

    Args:
        folder: where checkpoints go.
        least: an amount such as `5GB`, or a share of the whole disk such as `2%`; 0: nothing need be free.
        look: tells how full the disk of a folder is.

    Raises:
        ValueError: `least` is neither.
    """

    folder: Path
    least: str
    look: Callable[[Path], Usage] = shutil.disk_usage

    def __post_init__(self) -> None:
        """Checks what must be free."""
        self._bytes(0)

    @property
    def free(self) -> int:
        """Bytes that are free."""
        return self._usage().free

    @property
    def needed(self) -> int:
        """Bytes that must be free for trials to begin."""
        return self._bytes(self._usage().total)

    @property
    def shortage(self) -> str:
        """What is short, for people; empty: nothing."""
        usage = self._usage()
        needed = self._bytes(usage.total)
        if usage.free >= needed:
            return ""
        rule = f"need {_shown(needed)} (SWEEPSERVE_MIN_FREE_DISK={self.least})"
        return f"no trial begins: {_shown(usage.free)} are free in {self.folder}, {rule}"

    def _usage(self) -> Usage:
        return self.look(next(path for path in (self.folder, *self.folder.parents) if path.exists()))

    def _bytes(self, total: int) -> int:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?(%|[kMGT]B|)", self.least, re.ASCII)
        if match is None or (match[2] == "%" and float(match[1]) > 100):
            raise ValueError(f"need an amount of disk space such as 5GB, or a share such as 2%, got {self.least!r}")
        number, unit = float(match[1]), match[2]
        return int(number / 100 * total if unit == "%" else number * UNITS[unit])


def _shown(count: int) -> str:
    unit = next(unit for unit in reversed(UNITS) if count >= UNITS[unit] or not unit)
    return f"{count / UNITS[unit]:.3g} {unit or 'bytes'}"
