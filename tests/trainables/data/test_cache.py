"""Datasets on disk are made once and whole, whatever interrupts or spoils them."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from trainables.data.cache import BLOCK_IMAGES, cached
from trainables.data.dataset import Dataset, DataUnavailable, Split
from trainables.data.digits import Digits

CONFIG = Digits(image_size=8)
BLOCKS = 4
COUNTS = {"train": BLOCKS * BLOCK_IMAGES - 100, "validation": 7, "test": 5}


class Maker:
    """Makes images that tell their split and number, counts what it made, and can fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.made: list[tuple[str, int]] = []
        self.fail_at = fail_at
        self._lock = threading.Lock()

    def __call__(self, split: str, start: int, stop: int) -> Split:
        with self._lock:
            if self.fail_at is not None and len(self.made) >= self.fail_at:
                raise RuntimeError("interrupted")
            self.made.append((split, start))
        return block(split, start, stop)


def block(split: str, start: int, stop: int) -> Split:
    """Images whose first four pixels are the split's letter and the image's number."""
    images = np.zeros((stop - start, 1, 8, 8), np.uint8)
    number = np.arange(start, stop)
    images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 0, 2] = ord(split[0]), number // 256, number % 256
    return Split(images=images, targets=number % 10)


def assert_right(dataset: Dataset) -> None:
    """Every image and target is the one that `block` makes."""
    for name, count in COUNTS.items():
        split, expected = getattr(dataset, name), block(name, 0, count)
        assert np.array_equal(split.images, expected.images)
        assert np.array_equal(split.targets, expected.targets)


def folder(root: Path) -> Path:
    """Where the dataset is."""
    return root / f"digits-{CONFIG.digest}"


def test_made_once_then_opened(tmp_path: Path) -> None:
    """Every block is made once, and the second load makes none."""
    maker = Maker()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker))
    assert len(maker.made) == len(set(maker.made)) == BLOCKS + 2
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=0)))


def test_interrupted_run_leaves_nothing_taken_for_whole_and_continues(tmp_path: Path) -> None:
    """After an error the folder has no name yet; the next run makes only the blocks that are missing."""
    first = Maker(fail_at=3)
    with pytest.raises(RuntimeError, match="interrupted"):
        cached(CONFIG, tmp_path, COUNTS, lambda: first)
    assert not folder(tmp_path).exists()
    second = Maker()
    steps: list[tuple[int, int]] = []
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: second, lambda done, total: steps.append((done, total))))
    assert not set(first.made) & set(second.made)
    assert steps[0][0] > 0


def test_journal_line_cut_short_costs_only_its_block(tmp_path: Path) -> None:
    """A run killed while it wrote its journal loses that one block, not the others, also when killed twice."""
    with pytest.raises(RuntimeError, match="interrupted"):
        cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=3))
    journal = tmp_path / f"{folder(tmp_path).name}.partial" / "journal.jsonl"
    assert len(journal.read_bytes().splitlines()) == 3
    journal.write_bytes(journal.read_bytes()[:-20])
    with pytest.raises(RuntimeError, match="interrupted"):
        cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=2))
    second = Maker()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: second))
    assert len(second.made) == BLOCKS + 2 - 4


@pytest.mark.parametrize("file", ["train.images.npy", "test.targets.npy"])
def test_truncated_file_is_made_again(tmp_path: Path, file: str) -> None:
    """A file that lost its end is not opened."""
    cached(CONFIG, tmp_path, COUNTS, lambda: Maker())
    path = folder(tmp_path) / file
    os.truncate(path, path.stat().st_size - 1)
    maker = Maker()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker))
    assert maker.made


@pytest.mark.parametrize("where", [0, 200, -1])
def test_altered_byte_is_found_by_its_checksum(tmp_path: Path, where: int) -> None:
    """One flipped bit, in the head, in the middle or at the end, and the dataset is made again."""
    cached(CONFIG, tmp_path, COUNTS, lambda: Maker())
    path = folder(tmp_path) / "train.images.npy"
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    maker = Maker()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker))
    assert maker.made


def test_touched_but_unaltered_file_is_hashed_and_kept(tmp_path: Path) -> None:
    """A copy of the folder has other times of change: its blocks are hashed once, found right, and remembered."""
    cached(CONFIG, tmp_path, COUNTS, lambda: Maker())
    path = folder(tmp_path) / "train.images.npy"
    os.utime(path, ns=(1, 1))
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=0)))
    assert json.loads((folder(tmp_path) / "verified.json").read_text())[path.name][1] == 1


def test_whole_dataset_is_hashed_and_opened_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A copy on a read-only disk, for which a lock and a stamp that cannot be written stand in."""
    cached(CONFIG, tmp_path, COUNTS, lambda: Maker())
    os.utime(folder(tmp_path) / "train.images.npy", ns=(1, 1))
    for path in (tmp_path / f"{folder(tmp_path).name}.lock", folder(tmp_path) / "verified.json"):
        path.unlink()
        path.mkdir()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=0)))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_unreadable_header_means_making_again(tmp_path: Path, text: str) -> None:
    """A folder whose header says nothing usable is not trusted."""
    cached(CONFIG, tmp_path, COUNTS, lambda: Maker())
    (folder(tmp_path) / "verified.json").unlink()
    (folder(tmp_path) / "header.json").write_text(text)
    maker = Maker()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker))
    assert maker.made


def test_disk_without_room_is_a_clear_error(tmp_path: Path) -> None:
    """The message says where, what and how much; nothing is made. A limit on file sizes stands in for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    maker = Maker()
    try:
        with pytest.raises(DataUnavailable, match=rf"no room in {tmp_path}: .* needs 0\.\d MiB"):
            cached(CONFIG, tmp_path, COUNTS, lambda: maker)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not maker.made
    assert taken(tmp_path) == 0
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker))


def taken(root: Path) -> int:
    """Bytes in all files under the folder."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_a_reserve_of_the_disk_stays_free(tmp_path: Path) -> None:
    """A dataset that would leave less is not begun; one that was begun before has its room, and goes on."""
    everything = shutil.disk_usage(tmp_path).total
    maker = Maker()
    with pytest.raises(
        DataUnavailable, match=rf"no room in {tmp_path}: .* needs 0\.\d MiB, and [\d,]+\.\d MiB stay free"
    ):
        cached(CONFIG, tmp_path, COUNTS, lambda: maker, reserve=everything)
    assert not maker.made
    assert taken(tmp_path) == 0
    with pytest.raises(RuntimeError, match="interrupted"):
        cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=3), reserve=1)
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker, reserve=everything))
    assert len(maker.made) == BLOCKS + 2 - 3


def test_a_disk_that_fills_while_a_dataset_is_made_gets_its_room_back(tmp_path: Path) -> None:
    """Where a file system gives no room in advance: what was made so far goes, as nobody may ever make the rest."""

    def full(split: str, start: int, stop: int) -> Split:
        if split == "test":
            raise OSError(errno.ENOSPC, "No space left on device")
        return block(split, start, stop)

    with pytest.raises(DataUnavailable, match="no room in"):
        cached(CONFIG, tmp_path, COUNTS, lambda: full)
    assert taken(tmp_path) == 0


def test_a_full_disk_takes_nothing_of_what_an_earlier_run_has_made(tmp_path: Path) -> None:
    """It goes on from there once there is room, as after any other interruption."""

    def full(split: str, start: int, stop: int) -> Split:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RuntimeError, match="interrupted"):
        cached(CONFIG, tmp_path, COUNTS, lambda: Maker(fail_at=3))
    with pytest.raises(DataUnavailable, match="no room in"):
        cached(CONFIG, tmp_path, COUNTS, lambda: full)
    maker = Maker()
    assert_right(cached(CONFIG, tmp_path, COUNTS, lambda: maker))
    assert len(maker.made) == BLOCKS + 2 - 3


def test_root_that_cannot_be_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    """Such as a file of that name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataUnavailable, match="cannot keep digits-"):
        cached(CONFIG, tmp_path / "file", COUNTS, lambda: Maker())


SCRIPT = """
import sys, time
from pathlib import Path
from tests_block import block, CONFIG, COUNTS
from trainables.data.cache import cached

def make(split, start, stop):
    time.sleep(0.2)  # long enough to be killed or met in the middle
    with Path(sys.argv[2]).open("a") as log:
        log.write(f"{split} {start}\\n")
    return block(split, start, stop)

dataset = cached(CONFIG, Path(sys.argv[1]), COUNTS, lambda: make)
print(sum(len(split) for split in (dataset.train, dataset.validation, dataset.test)))
"""


def run(root: Path, log: Path) -> subprocess.Popen[str]:
    """Another process that loads the dataset and notes every block that it makes."""
    here = Path(__file__).parent
    (root.parent / "tests_block.py").write_text((here / "test_cache.py").read_text().split("SCRIPT =")[0])
    path = os.pathsep.join([str(here.parents[2]), str(root.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(log)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.slow
def test_two_processes_make_a_dataset_once(tmp_path: Path) -> None:
    """The one waits for the other; no block is made twice."""
    root, log = tmp_path / "data", tmp_path / "log"
    processes = [run(root, log), run(root, log)]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [int(output) for output in outputs] == [sum(COUNTS.values())] * 2
    assert len(log.read_text().splitlines()) == BLOCKS + 2


@pytest.mark.slow
def test_killed_process_is_continued(tmp_path: Path) -> None:
    """After SIGKILL the lock is free, finished blocks stay, and the whole is right."""
    root, log = tmp_path / "data", tmp_path / "log"
    process = run(root, log)
    journal = root / f"{folder(root).name}.partial" / "journal.jsonl"
    try:
        while not (journal.exists() and journal.read_bytes()):
            assert process.poll() is None, "ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        process.kill()
    assert not folder(root).exists()
    kept = len(journal.read_bytes().splitlines())
    second = Maker()
    assert_right(cached(CONFIG, root, COUNTS, lambda: second))
    assert kept >= 1
    assert len(second.made) == BLOCKS + 2 - kept
