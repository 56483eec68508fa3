"""Which blocks of a dataset are finished, kept on disk while it is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

Block = tuple[str, int, int]
"""Images from one number up to another of a split."""
Checksums = Mapping[str, str]
"""Of what a block puts into each file, by the file's name."""


@final
class Journal:
    """Finished blocks with the checksums of their parts. A line is on disk before `add` returns.

    The line that a killed process was writing is left out when the journal is opened again.
    """

    def __init__(self, path: Path) -> None:
        self.blocks: dict[Block, Checksums] = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            with suppress(ValueError):
                split, start, stop, checksums = json.loads(line)
                self.blocks[split, start, stop] = checksums
        self._file = path.open("wb", buffering=0)
        for block, checksums in self.blocks.items():
            self._write(block, checksums)

    def add(self, block: Block, checksums: Checksums) -> None:
        """Note that a block is on disk."""
        self._write(block, checksums)
        self.blocks[block] = checksums

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, block: Block, checksums: Checksums) -> None:
        self._file.write(json.dumps([*block, checksums]).encode() + b"\n")
        os.fsync(self._file.fileno())
