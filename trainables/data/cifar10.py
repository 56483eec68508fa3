"""CIFAR-10: 60,000 small colour photographs in ten classes.

Krizhevsky 2009, "Learning multiple layers of features from tiny images". Read from the published binary version: an
image is a byte of class, then 1,024 bytes each of red, green and blue. (The pickled version is never opened.)
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from trainables.checked_text import RelativePath
from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.dataset import Dataset, DatasetConfig, DataUnavailable, Progress
from trainables.data.published import Published, obtain, published_folder
from trainables.data.sampling import share_out
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks import Classification

ARCHIVE = Published(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
INSIDE = "cifar-10-batches-bin"
TRAINING_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
TRAINING, TEST = 50_000, 10_000
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of the 50,000 training images, per channel, scaled to 0..1, as is usual.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CIFAR10(DatasetConfig):
    """Which photographs are trained on. Validation images come from the published training files."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"folder"})

    train: int = setting(40_000, at_least=1, help="training images; fewer are a subset of more, at the same seed")
    validation: int = setting(10_000, at_least=1, help="validation images; the same for every `train`")
    test: int = setting(TEST, at_least=1, at_most=TEST, help="test images")
    seed: int = setting(0, at_least=0, help="of the choice of images")
    folder: RelativePath = setting(
        RelativePath(""),
        help="where the published archive, or its files, are, below downloads in the data folder; empty: cifar10",
    )

    @property
    def name(self) -> str:
        """`cifar10`."""
        return "cifar10"

    @property
    def task(self) -> Classification:
        """Which of the ten classes."""
        return Classification(classes=CLASSES)

    @property
    def preprocessing(self) -> Preprocessing:
        """Colour, 32x32, normalised per channel."""
        return Preprocessing(channels=3, height=32, width=32, mean=MEAN, std=STD)

    def rules(self) -> Iterator[tuple[str, str]]:
        """The training files have 50,000 images."""
        if self.train + self.validation > TRAINING:
            yield "train", f"need train + validation <= {TRAINING}, got {self.train + self.validation}"

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits; the files are read (or downloaded) only if the dataset was not made before."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            folder = published_folder(root, self.folder or RelativePath(self.name))
            *training, test = _read_files(folder)
            batches = [read_records(*file) for file in training]
            images = np.concatenate([images for images, _ in batches])
            labels = np.concatenate([labels for _, labels in batches])
            return share_out((images, labels), read_records(*test), counts=counts, seed=self.seed)

        return cached(self, root, counts, begin, progress, spread, reserve=reserve)


def read_records(origin: str, data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images `[n, 3, 32, 32]` and classes `[n]` of one binary file.

    Raises:
        DataUnavailable: the data is not whole records of the ten classes.
    """
    if not data or len(data) % RECORD:
        raise DataUnavailable(f"{origin} has {len(data):,} bytes, not a multiple of {RECORD:,}")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise DataUnavailable(f"{origin} has class {records[:, 0].max()}, and there are {len(CLASSES)}")
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]


def _read_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The six files, training first: from the folder, the archive's own folder in it, or the archive."""
    names = (*TRAINING_FILES, TEST_FILE)
    for place in (folder, folder / INSIDE):
        if all((place / name).exists() for name in names):
            yield from ((str(place / name), (place / name).read_bytes()) for name in names)
            return
    (archive,) = obtain([ARCHIVE], folder)
    try:
        with tarfile.open(archive) as tar:
            for name in names:
                member = tar.extractfile(f"{INSIDE}/{name}")
                if member is None:
                    raise DataUnavailable(f"{archive} holds no file {INSIDE}/{name}")
                yield f"{archive}:{name}", member.read()
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise DataUnavailable(f"cannot read {archive}: {error}") from error
