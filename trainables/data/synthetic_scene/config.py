"""The synthetic scene's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.dataset import Dataset, DatasetConfig, Progress, Split
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks.pose import PoseRegression

MEAN, STD = (0.49, 0.55, 0.64), (0.1, 0.18, 0.21)  # of the default street, scaled to 0..1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticScene(DatasetConfig):
    """How many photographs of what street."""

    image_size: int = setting(96, at_least=16, at_most=1024, help="rows and columns of the images")
    train: int = setting(2000, at_least=1, help="training images")
    validation: int = setting(200, at_least=1, help="validation images")
    test: int = setting(200, at_least=1, help="test images")
    boxes: int = setting(24, at_least=1, at_most=1000, help="boxes in the street")
    reach: float = setting(1.0, above=0, at_most=1.5, help="metres that cameras are from the origin along each axis")
    seed: int = setting(0, at_least=0, help="of the street and of the cameras")

    @property
    def name(self) -> str:
        """`synthetic_scene`."""
        return "synthetic_scene"

    @property
    def task(self) -> PoseRegression:
        """Where the camera was, and how it was turned."""
        return PoseRegression(beta=100.0)

    @property
    def preprocessing(self) -> Preprocessing:
        """Colour, as drawn."""
        return Preprocessing(channels=3, height=self.image_size, width=self.image_size, mean=MEAN, std=STD)

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits; all show the same street."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            # Here, since numba takes seconds to import and an existing dataset needs none of it.
            from trainables.data.streams import stream
            from trainables.data.synthetic_scene.scene import camera, photograph, street

            faces, colours = street(self.boxes, stream(self.seed, "pilot", 0))

            def make(split: str, start: int, stop: int) -> Split:
                cameras = [camera(stream(self.seed, split, image), self.reach) for image in range(start, stop)]
                images = [photograph(faces, colours, one, self.image_size) for one in cameras]
                return Split(
                    images=np.stack([image.transpose(2, 0, 1) for image in images]),
                    targets=np.stack([one.pose for one in cameras]),
                )

            return make

        return cached(self, root, counts, begin, progress, spread, reserve=reserve)
