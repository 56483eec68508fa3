"""MNIST: 70,000 handwritten digits.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition". The files are in
the IDX format: two zero bytes, the type (8: unsigned bytes), the number of axes, their lengths (big-endian), the data.
"""

from __future__ import annotations

import gzip
import math
import struct
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

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = (
    Published("train-images-idx3-ubyte.gz", f"{MIRROR}train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    Published("train-labels-idx1-ubyte.gz", f"{MIRROR}train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
    Published("t10k-images-idx3-ubyte.gz", f"{MIRROR}t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
    Published("t10k-labels-idx1-ubyte.gz", f"{MIRROR}t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
)
TRAINING, TEST = 60_000, 10_000
SIZE = 28
# Of the 60,000 training images, scaled to 0..1, as is usual.
MEAN, STD = 0.1307, 0.3081


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MNIST(DatasetConfig):
    """Which digits are trained on. Validation images come from the published training files."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"folder"})

    train: int = setting(50_000, at_least=1, help="training images; fewer are a subset of more, at the same seed")
    validation: int = setting(10_000, at_least=1, help="validation images; the same for every `train`")
    test: int = setting(TEST, at_least=1, at_most=TEST, help="test images")
    seed: int = setting(0, at_least=0, help="of the choice of images")
    folder: RelativePath = setting(
        RelativePath(""), help="where the published files are, below downloads in the data folder; empty: mnist"
    )

    @property
    def name(self) -> str:
        """`mnist`."""
        return "mnist"

    @property
    def task(self) -> Classification:
        """Which of the ten digits."""
        return Classification(classes=tuple("0123456789"))

    @property
    def preprocessing(self) -> Preprocessing:
        """Grey, 28x28, normalised."""
        return Preprocessing(height=SIZE, width=SIZE, mean=(MEAN,), std=(STD,))

    def rules(self) -> Iterator[tuple[str, str]]:
        """The training files have 60,000 images."""
        if self.train + self.validation > TRAINING:
            yield "train", f"need train + validation <= {TRAINING}, got {self.train + self.validation}"

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits; the files are read (or downloaded) only if the dataset was not made before."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            folder = published_folder(root, self.folder or RelativePath(self.name))
            plain = [folder / file.name.removesuffix(".gz") for file in FILES]
            paths = plain if all(path.exists() for path in plain) else obtain(FILES, folder)
            images, labels, test_images, test_labels = (read_idx(path) for path in paths)
            for kind, pixels, classes in (("training", images, labels), ("test", test_images, test_labels)):
                if pixels.shape != (len(classes), SIZE, SIZE):
                    raise DataUnavailable(
                        f"{folder} has {kind} images {list(pixels.shape)} for {list(classes.shape)} labels, "
                        f"not [n, {SIZE}, {SIZE}] for [n]"
                    )
            return share_out(
                (images[:, None], labels), (test_images[:, None], test_labels), counts=counts, seed=self.seed
            )

        return cached(self, root, counts, begin, progress, spread, reserve=reserve)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, plain or compressed by gzip (told apart by its first bytes).

    Raises:
        DataUnavailable: the file is not of this format, or is cut short.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnavailable(f"cannot read {path}: {error}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise DataUnavailable(f"{path} is not an IDX file of unsigned bytes: it begins with {data[:4].hex()}")
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != math.prod(shape):
        raise DataUnavailable(f"{path} has {values.size:,} bytes of data, not {math.prod(shape):,} for {list(shape)}")
    return values.reshape(shape)
