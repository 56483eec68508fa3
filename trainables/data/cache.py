"""Datasets on disk: made once, found whole or made again, opened in milliseconds.

A dataset is a folder `<name>-<digest>` of `.npy` files (one an array and split, memory-mapped) and a `header.json`
with its config and a SHA-256 of every block of images. It is written as `<name>-<digest>.partial`, block by block,
with a journal of the finished blocks, so that a killed run continues where it was; only a whole folder is renamed to
its name. A file lock lets one process make what others wait for.

Hashing gigabytes at every opening would cost more than reading them, so `verified.json` keeps the size and time of
change of every file whose blocks were found right; the blocks are hashed again when a file no longer matches it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.data.dataset import Dataset, DatasetConfig, DataUnavailable, Progress, Split
from trainables.data.journal import Block, Checksums, Journal
from trainables.data.lock import locked
from trainables.data.spread import Spread, over_threads
from trainables.folder import FULL

FORMAT = 1
BLOCK_IMAGES = 500

Make = Callable[[str, int, int], Split]
"""Images and targets `start` to `stop` of a split, whatever was made before; by any thread or process."""


def cached(
    config: DatasetConfig,
    root: Path,
    counts: Mapping[str, int],
    begin: Callable[[], Make],
    progress: Progress | None = None,
    spread: Spread = over_threads,
    *,
    reserve: int = 0,
    margin: int = 0,
) -> Dataset:
    """The dataset of `config` under `root`, made if it is not there whole.

    Args:
        config: names the folder and shapes the images.
        root: the folder of all datasets.
        counts: images in `train`, `validation` and `test`.
        begin: called if there is something to make; what it gives makes any range of a split.
        progress: told of the images done; not called when there is nothing to make.
        spread: shares the work out.
        reserve: bytes of the disk that stay free; what another run has begun has its room already.
        margin: pixels that training images have on each side beyond what a model takes: training cuts parts out.

    Raises:
        DataUnavailable: `root` cannot be written, or its disk has no room.
    """
    folder = root / f"{config.name}-{config.digest}"
    item = channels, height, width = config.preprocessing.input_shape
    items = dict.fromkeys(counts, item) | {"train": (channels, height + 2 * margin, width + 2 * margin)}
    target = (config.task.TARGET, config.task.target_shape(item))
    store = _Store(folder, config.to_dict(), dict(counts), items, target)
    if not store.is_whole():
        try:
            with locked(folder.with_name(folder.name + ".lock")):
                if not store.is_whole():
                    store.make(begin(), progress or _tell_nobody, spread, reserve)
        except OSError as error:
            if error.errno in FULL:
                needed = f"{folder.name} needs {store.size / 2**20:,.1f} MiB"
                free = f", and {reserve / 2**20:,.1f} MiB stay free" if reserve else ""
                raise DataUnavailable(f"no room in {root}: {needed}{free}") from error
            raise DataUnavailable(f"cannot keep {folder.name} in {root}: {error}") from error
    splits = {
        name: Split(images=store.open(name, "images"), targets=store.open(name, "targets"))
        for name in ("train", "validation", "test")
    }
    return Dataset(
        name=config.name, digest=config.digest, task=config.task, preprocessing=config.preprocessing, **splits
    )


@dataclass(frozen=True, slots=True)
class _File:
    """One array of one split: `[n, *item]`, as a `.npy` file whose blocks can be written in any order."""

    split: str
    array: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.split}.{self.array}.npy"

    @property
    def head(self) -> bytes:
        text = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            text, {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": self.shape}
        )
        return text.getvalue()

    @property
    def item_bytes(self) -> int:
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        return len(self.head) + self.shape[0] * self.item_bytes


class _Store:
    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        counts: Mapping[str, int],
        items: Mapping[str, tuple[int, int, int]],
        target: tuple[str, tuple[int, ...]],
    ) -> None:
        self.folder, self.config, self.counts = folder, config, counts
        self.files = [
            file
            for split, n in counts.items()
            for file in (
                _File(split, "images", "uint8", (n, *items[split])),
                _File(split, "targets", target[0], (n, *target[1])),
            )
        ]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def open(self, split: str, array: str) -> npt.NDArray[Any]:
        """The array, memory-mapped and read-only."""
        opened: npt.NDArray[Any] = np.load(self.folder / f"{split}.{array}.npy", mmap_mode="r", allow_pickle=False)
        return opened

    def is_whole(self) -> bool:
        """Whether every file is there and right, hashed if need be."""
        return self.is_verified() or self.verify()

    def is_verified(self) -> bool:
        """Whether every file is as it was when its blocks were last found right."""
        try:
            return bool(json.loads((self.folder / "verified.json").read_text()) == self._stamp())
        except (OSError, ValueError):
            return False

    def verify(self) -> bool:
        """Whether every block has the checksum that the header gives; remembered for the next opening."""
        try:
            header = json.loads((self.folder / "header.json").read_text())
            if header["format"] != FORMAT:
                return False
            right = all(
                _hashes(self.folder / file.name, file, header["block_images"]) == header["blocks"][file.name]
                for file in self.files
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if right:
            # On a read-only disk nothing can be remembered: there a copy with other times is hashed at every opening.
            with suppress(OSError):
                _write_whole(self.folder / "verified.json", json.dumps(self._stamp()).encode())
        return right

    def _stamp(self) -> dict[str, list[int]]:
        stats = {file.name: (self.folder / file.name).stat() for file in self.files}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}

    def make(self, make: Make, progress: Progress, spread: Spread, reserve: int) -> None:
        """Write the blocks that an interrupted run has left, then give the folder its name.

        Raises:
            OSError: of a dataset that this run began and for which the disk has no room nothing is kept: it would only
                hold the disk. What an earlier run has made stays.
        """
        folder = self.folder.with_name(self.folder.name + ".partial")
        begun = self._has_begun(folder)
        try:
            self._make(folder, make, progress, spread, reserve)
        except OSError as error:
            if error.errno in FULL and not begun:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _make(self, folder: Path, make: Make, progress: Progress, spread: Spread, reserve: int) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # it is there only when it is not whole
        if not self._has_begun(folder):
            self._begin(folder, reserve)
        blocks = [
            (split, start, min(start + BLOCK_IMAGES, n))
            for split, n in self.counts.items()
            for start in range(0, n, BLOCK_IMAGES)
        ]
        with closing(Journal(folder / "journal.jsonl")) as journal:
            missing = [block for block in blocks if block not in journal.blocks]
            total = sum(self.counts.values())
            done = total - sum(stop - start for _, start, stop in missing)
            progress(done, total)
            for block, checksums in spread(partial(self._write_block, folder, make), missing):
                journal.add(block, checksums)
                done += block[2] - block[1]
                progress(done, total)
            hashes = {
                file.name: [journal.blocks[block][file.name] for block in blocks if block[0] == file.split]
                for file in self.files
            }
        header = {"format": FORMAT, "config": self.config, "block_images": BLOCK_IMAGES, "blocks": hashes}
        _write_whole(folder / "header.json", json.dumps(header).encode())
        (folder / "journal.jsonl").unlink()
        folder.rename(self.folder)
        _write_whole(self.folder / "verified.json", json.dumps(self._stamp()).encode())

    def _has_begun(self, partial: Path) -> bool:
        try:
            return all((partial / file.name).stat().st_size == file.size for file in self.files)
        except OSError:
            return False

    def _begin(self, partial: Path, reserve: int) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        if shutil.disk_usage(partial.parent).free - self.size < reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))
        partial.mkdir(parents=True)
        for file in self.files:
            with (partial / file.name).open("wb") as out:
                out.write(file.head)
                os.posix_fallocate(out.fileno(), 0, file.size)  # a disk without room says so before any work

    def _write_block(self, folder: Path, make: Make, block: Block) -> Checksums:
        split, start, stop = block
        made = make(split, start, stop)
        checksums = {}
        for file in (file for file in self.files if file.split == split):
            array = np.asarray(getattr(made, file.array), dtype=file.dtype)
            assert array.shape == (stop - start, *file.shape[1:]), f"{file.name}: made {array.shape}"
            data = array.tobytes()
            with (folder / file.name).open("r+b") as out:
                out.seek(len(file.head) + start * file.item_bytes)
                out.write(data)
                out.flush()
                os.fdatasync(out.fileno())
            checksums[file.name] = hashlib.sha256(data).hexdigest()
        return checksums


def _hashes(path: Path, file: _File, block_images: int) -> list[str]:
    """SHA-256 of every block, or nothing when the file has another size or head."""
    with path.open("rb") as data:
        if path.stat().st_size != file.size or data.read(len(file.head)) != file.head:
            return []
        blocks = iter(lambda: data.read(block_images * file.item_bytes), b"")
        return [hashlib.sha256(block).hexdigest() for block in blocks]


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(path)


def _tell_nobody(done: int, total: int) -> None:
    del done, total
