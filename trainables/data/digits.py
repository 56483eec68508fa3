"""The 1,797 handwritten digits that scikit-learn ships: real images, here without a download.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (its test half):
8x8 pixels, each the number (0 to 16) of ink pixels in a 4x4 square of the scanned bitmap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.dataset import Dataset, DatasetConfig, Progress, Split
from trainables.data.sampling import order
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks import Classification

IMAGES = 1797
# Of all 1,797 images at their own 8x8 pixels, scaled to 0..1.
MEAN, STD = 0.305309, 0.375886


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Digits(DatasetConfig):
    """Which digits are trained on, and at what size."""

    image_size: int = setting(32, at_least=8, at_most=1024, help="rows and columns that the 8x8 images are enlarged to")
    train: int = setting(1197, at_least=1, help="training images")
    validation: int = setting(300, at_least=1, help="validation images")
    test: int = setting(300, at_least=1, help="test images")
    seed: int = setting(0, at_least=0, help="of the order in which the images are shared out")

    @property
    def name(self) -> str:
        """`digits`."""
        return "digits"

    @property
    def task(self) -> Classification:
        """Which of the ten digits."""
        return Classification(classes=tuple("0123456789"))

    @property
    def preprocessing(self) -> Preprocessing:
        """Grey, enlarged linearly, and normalised by the statistics of the original pixels."""
        return Preprocessing(height=self.image_size, width=self.image_size, mean=(MEAN,), std=(STD,))

    def rules(self) -> Iterator[tuple[str, str]]:
        """The splits share out the images that there are."""
        total = self.train + self.validation + self.test
        if total > IMAGES:
            yield "train", f"need train + validation + test <= {IMAGES}, got {total}"

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits; no image is in two of them."""
        starts = {"train": 0, "validation": self.train, "test": self.train + self.validation}

        def begin() -> Make:
            numbers, classes = _shipped()
            pixels = np.rint(numbers * (255 / 16)).astype(np.uint8)
            shuffled = order(IMAGES, self.seed)

            def make(split: str, start: int, stop: int) -> Split:
                chosen = shuffled[starts[split] + start : starts[split] + stop]
                images = np.stack([self.preprocessing.fit(image) for image in pixels[chosen]])
                return Split(images=images, targets=classes[chosen])

            return make

        counts = {"train": self.train, "validation": self.validation, "test": self.test}
        return cached(self, root, counts, begin, progress, spread, reserve=reserve)


def _shipped() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images [n, 8, 8] and classes [n], as `sklearn.datasets.load_digits` gives them; importing that takes a second.

    Raises:
        FileNotFoundError: scikit-learn is not installed, or keeps its digits elsewhere.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise FileNotFoundError("need scikit-learn, which ships the digits, and found none")
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
