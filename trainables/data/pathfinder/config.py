"""The Pathfinder dataset's settings and how it is made.

Linsley et al. 2018, "Learning long-range spatial dependencies with horizontal gated recurrent units"; the details
follow the program that its authors published, with its slips (see `placing`). Two long dashed paths, shorter ones
that distract, and two discs: on the two ends of one path (class `connected`), or on ends of both (`separate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, final

from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.dataset import Dataset, DatasetConfig, Progress, Split
from trainables.data.drawn import PIXEL_RANGE_HELP, RESIZE_HELP, PixelRange, Resize, drawn_grey, labelled, masked
from trainables.data.pathfinder.frame import PRESETS, Frame
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks import Classification, Segmentation, Task

if TYPE_CHECKING:
    from trainables.data.pathfinder.scene import Scene


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pathfinder(DatasetConfig):
    """Which Pathfinder images, how many, and at what size. PF-6, -9 and -14 are path lengths of the defaults.

    A warning to whoever quotes an accuracy: the ends of a smooth path are about as far apart as its length says, the
    ends of two paths are not. An interval of marker distances alone is right on 86 and 78 % of images at path lengths
    6 and 9, and on a little over 60 % at 14. `distances.marker_distance_baseline` measures it for any settings, and
    `match_distances` takes the shortcut away.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"masks", "pixel_range"})

    path_length: int = setting(14, at_least=2, help="dashes of each of the two long paths")
    preset: Literal["papers", "lra_32", "lra_64", "lra_128", "lra_256"] = setting(
        "papers", help="published drawing parameters: of the papers, or of the Long Range Arena at a resolution"
    )
    frame: Frame | None = setting(None, help="drawing parameters of your own; none: the preset's")
    distractors: int | None = setting(
        None, at_least=0, at_most=1000, help="shorter paths; none: the preset's number (the papers': 15)"
    )
    distractor_length: int | None = setting(None, at_least=1, help="their dashes; none: a third of path_length")
    match_distances: bool = setting(
        False, help="choose paths so that the distance of the markers does not tell the class"
    )
    image_size: int | None = setting(
        None,
        at_least=8,
        at_most=1024,
        help="rows and columns of the images; none: the preset's (the papers': 150), or frame.window",
    )
    resize: Resize = setting("nearest", help=RESIZE_HELP)
    pixel_range: PixelRange = setting("centred", help=PIXEL_RANGE_HELP)
    masks: bool = setting(
        False, help="ask which pixels the marked path covers, of images with one disc, and not for the class"
    )
    train: int = setting(54_000, at_least=1, at_most=10**7, help="training images")
    validation: int = setting(5_000, at_least=1, at_most=10**7, help="validation images")
    test: int = setting(5_000, at_least=1, at_most=10**7, help="test images")
    seed: int = setting(0, at_least=0, at_most=2**63, help="of all that is drawn by chance")

    @property
    def name(self) -> str:
        """`pathfinder`."""
        return "pathfinder"

    @property
    def task(self) -> Task:
        """Whether the discs lie on one path, or which pixels the path with the one disc covers."""
        return Segmentation(covers="path") if self.masks else Classification(classes=("separate", "connected"))

    @property
    def preprocessing(self) -> Preprocessing:
        """Grey, resized, and of the pixel range asked for."""
        size = self.image_size or (self.frame.window if self.frame else PRESETS[self.preset].image_size)
        return drawn_grey(size, self.resize, self.pixel_range)

    @property
    def drawn(self) -> Frame:
        """The drawing parameters that hold."""
        return self.frame or PRESETS[self.preset].frame

    @property
    def distractor_paddles(self) -> int:
        """Dashes of one distractor."""
        return self.distractor_length or self.path_length // 3

    def rules(self) -> Iterator[tuple[str, str]]:
        """There is a length for distractors, and room for the paths."""
        if self.distractor_length is None and self.path_length < 3:
            yield "distractor_length", f"need one given when path_length // 3 is 0, at path_length {self.path_length}"
        frame = self.drawn
        margin = max(frame.paddle_margins)
        kept_free = (frame.paddle_length + 2 * margin) * (frame.paddle_thickness + 2 * margin)
        room = (frame.window - 2 * frame.padding) ** 2 / (2 * kept_free)
        if self.path_length > room:
            yield "path_length", f"need <= {int(room)}, or two paths do not fit in the window, got {self.path_length}"

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits. Image i of a split is the same whatever the splits' sizes.

        Raises:
            ValueError: paths of this length could not be placed in any of very many attempts.
        """
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            self.scene("train", 0)  # compiled, and distances matched, before many threads want it at once
            return self.make_masks if self.masks else self.make

        return cached(self, root, counts, begin, progress, spread, reserve=reserve)

    def make(self, split: str, start: int, stop: int) -> Split:
        """Images `start` to `stop` of a split, and their classes."""
        from trainables.data.pathfinder.scene import draw

        scenes = (self.scene(split, image) for image in range(start, stop))
        return labelled(stop - start, ((draw(scene), scene.label) for scene in scenes), self.preprocessing)

    def make_masks(self, split: str, start: int, stop: int) -> Split:
        """Images `start` to `stop` of a split with the first marker only, and masks of its path (0 or 1)."""
        from trainables.data.pathfinder.scene import draw_segmentation

        scenes = (self.scene(split, image) for image in range(start, stop))
        return masked(stop - start, map(draw_segmentation, scenes), self.preprocessing)

    def scene(self, split: str, image: int) -> Scene:
        """What is where in one image: paddles, markers, label."""
        # Imported here, since compiling takes seconds and most who read a config make no image.
        from trainables.data.pathfinder.distances import matching
        from trainables.data.pathfinder.scene import KEEP_ALL, compose

        length = self.distractor_paddles
        preset = PRESETS[self.preset]
        return compose(
            self.drawn,
            path_length=self.path_length,
            distractors=preset.distractors_of(length) if self.distractors is None else self.distractors,
            distractor_length=length,
            seed=self.seed,
            split=split,
            image=image,
            matching=matching(self.drawn, self.path_length) if self.match_distances else KEEP_ALL,
        )
