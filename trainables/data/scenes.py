"""Small scenes of shapes over textured grounds: panoptic segmentation without a download.

Sky is above a sloping horizon, and grass and water are beside each other below it; discs, squares and triangles of any
colour lie over them and over each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.dataset import Dataset, DatasetConfig, Progress, Split
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks.panoptic import DIVISOR, Panoptic

if TYPE_CHECKING:
    from trainables.data.streams import Stream

THINGS = ("disc", "square", "triangle")
STUFF = ("sky", "grass", "water")
GROUNDS = ((150, 190, 225), (70, 140, 60), (40, 80, 150))
STRIPES = 12
"""Of grass (upright) and water (level): how much darker and brighter than their colours."""
MEAN, STD = (0.41, 0.57, 0.62), (0.21, 0.19, 0.27)  # of the default scenes, scaled to 0..1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes(DatasetConfig):
    """How many scenes, and what is in them."""

    image_size: int = setting(64, at_least=33, at_most=1024, help="rows and columns of the images")
    train: int = setting(2000, at_least=1, help="training images")
    validation: int = setting(200, at_least=1, help="validation images")
    test: int = setting(200, at_least=1, help="test images")
    most: int = setting(4, at_least=1, at_most=100, help="things of a scene: from 1 to so many; some are hidden")
    seed: int = setting(0, at_least=0, help="of what is drawn")

    @property
    def name(self) -> str:
        """`scenes`."""
        return "scenes"

    @property
    def task(self) -> Panoptic:
        """Shapes are things, grounds are stuff."""
        return Panoptic(things=THINGS, stuff=STUFF)

    @property
    def preprocessing(self) -> Preprocessing:
        """Colour, as drawn."""
        return Preprocessing(channels=3, height=self.image_size, width=self.image_size, mean=MEAN, std=STD)

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits, drawn if they are not there yet."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            # Here, since numba takes seconds to import and an existing dataset needs none of it.
            from trainables.data.streams import stream

            def make(split: str, start: int, stop: int) -> Split:
                drawn = [draw(stream(self.seed, split, i), self.image_size, self.most) for i in range(start, stop)]
                images, targets = zip(*drawn, strict=True)
                return Split(images=np.stack(images), targets=np.stack(targets))

            return make

        return cached(self, root, counts, begin, progress, spread, reserve=reserve)


def draw(draws: Stream, size: int, most: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """A scene: the image `[3, size, size]` and its target `[size, size]`."""
    from trainables.data.streams import below, uniform

    def between(low: float, high: float) -> float:
        return low + (high - low) * uniform(draws)

    y, x = np.mgrid[:size, :size]
    horizon = size * between(0.3, 0.6) + between(-0.3, 0.3) * (x - size / 2)
    shore = size * between(0.25, 0.75) + between(-0.5, 0.5) * (y - size / 2)
    ground = np.where(y < horizon, 0, np.where(x < shore, 1, 2))
    light = np.where(
        ground == 0, STRIPES * (y / size - 0.5), np.where(ground == 1, x, y) // 2 % 2 * 2 * STRIPES - STRIPES
    )
    image = np.array(GROUNDS, float)[ground] + light[:, :, None] + between(-15, 15)
    target = (1 + len(THINGS) + ground) * DIVISOR
    for instance in range(1, 2 + below(draws, most)):
        kind, radius = below(draws, len(THINGS)), size * between(0.08, 0.2)
        across, down = x - between(0, size), y - between(0, size)
        colour = [between(0, 255) for _ in range(3)]
        covered = _covered(kind, across, down, radius)
        image = np.where(covered[:, :, None], colour, image)
        target = np.where(covered, (1 + kind) * DIVISOR + instance, target)
    noise = np.array([uniform(draws) for _ in range(size)])[:, None] * 8  # of each row, as of a poor camera
    pixels = (image + noise[:, :, None]).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
    return pixels, target.astype(np.int32)


def _covered(
    kind: int, across: npt.NDArray[np.float64], down: npt.NDArray[np.float64], radius: float
) -> npt.NDArray[np.bool_]:
    """A disc, a square or an upright triangle of some radius; distances are from its middle."""
    if THINGS[kind] == "disc":
        inside = across**2 + down**2 <= radius**2
    elif THINGS[kind] == "square":
        inside = np.maximum(abs(across), abs(down)) <= radius * math.sqrt(0.75)
    else:
        inside = (down <= radius) & (2 * abs(across) <= radius + down)
    return np.asarray(inside)
