"""The cluttered ABC dataset's settings and how it is made.

Kim et al. 2020, "Disentangling neural mechanisms for perceptual grouping": two letters drawn in dots overlap a little,
and two rings lie on one of them (class `same`) or on both (class `different`). The details follow the program that its
authors published; the letters are our own strokes (see `letters` and `shape`). Unlike Pathfinder's, the rings'
distance tells nothing: it is drawn before the letter that the second ring is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, final

from trainables.config import setting
from trainables.data.cabc.difficulty import DIFFICULTIES
from trainables.data.cache import cached
from trainables.data.dataset import Dataset, DatasetConfig, Progress, Split
from trainables.data.drawn import PIXEL_RANGE_HELP, RESIZE_HELP, PixelRange, Resize, drawn_grey, labelled, masked
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks import Classification, Segmentation, Task

if TYPE_CHECKING:
    from trainables.data.cabc.scene import Scene


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClutteredABC(DatasetConfig):
    """Which cluttered ABC images, how many, and at what size."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"masks", "pixel_range"})

    difficulty: Literal["easy", "intermediate", "hard"] = setting(
        "hard", help="easy: both letters vary together and lie opposite each other; hard: each varies for itself"
    )
    placement: Literal["original", "intended"] = setting(
        "original",
        help="original: with its program's slips (the first letter always lies below and to the right, both are "
        "placed by the second's centre of mass); intended: any direction, each letter by its own centre",
    )
    image_size: int = setting(
        150, at_least=8, at_most=1024, help="rows and columns of the images, which are drawn at 350"
    )
    resize: Resize = setting("nearest", help=RESIZE_HELP)
    pixel_range: PixelRange = setting("centred", help=PIXEL_RANGE_HELP)
    masks: bool = setting(
        False, help="ask which pixels the marked letter covers, of images with one ring, and not for the class"
    )
    train: int = setting(40_500, at_least=1, at_most=10**7, help="training images")
    validation: int = setting(5_000, at_least=1, at_most=10**7, help="validation images")
    test: int = setting(5_000, at_least=1, at_most=10**7, help="test images")
    seed: int = setting(0, at_least=0, at_most=2**63, help="of all that is drawn by chance")

    @property
    def name(self) -> str:
        """`cabc`."""
        return "cabc"

    @property
    def task(self) -> Task:
        """Whether the rings lie on one letter, or which pixels the letter with the one ring covers."""
        return Segmentation(covers="letter") if self.masks else Classification(classes=("different", "same"))

    @property
    def preprocessing(self) -> Preprocessing:
        """Grey, resized, and of the pixel range asked for."""
        return drawn_grey(self.image_size, self.resize, self.pixel_range)

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits. Image i of a split is the same whatever the splits' sizes."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}
        make = self.make_masks if self.masks else self.make
        return cached(self, root, counts, lambda: make, progress, spread, reserve=reserve)

    def make(self, split: str, start: int, stop: int) -> Split:
        """Images `start` to `stop` of a split, and their classes."""
        from trainables.data.cabc.scene import draw

        scenes = (self.scene(split, image) for image in range(start, stop))
        return labelled(stop - start, ((draw(scene), scene.label) for scene in scenes), self.preprocessing)

    def make_masks(self, split: str, start: int, stop: int) -> Split:
        """Images `start` to `stop` of a split with the first ring only, and masks of its letter (0 or 1)."""
        from trainables.data.cabc.scene import draw_segmentation

        scenes = (self.scene(split, image) for image in range(start, stop))
        return masked(stop - start, map(draw_segmentation, scenes), self.preprocessing)

    def scene(self, split: str, image: int) -> Scene:
        """What is where in one image: letters, dots, rings, label."""
        # Imported here, since compiling takes seconds and most who read a config make no image.
        from trainables.data.cabc.scene import compose_scene

        return compose_scene(
            DIFFICULTIES[self.difficulty],
            slips=self.placement == "original",
            seed=self.seed,
            split=split,
            image=image,
        )
