"""One image's content: where every paddle and both markers are, and how that is drawn (compiled)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainables.data.compiled import compiled
from trainables.data.pathfinder.frame import Frame
from trainables.data.pathfinder.placing import Area, Ints, copy_into, place_distractors, place_pair, stamp
from trainables.data.pathfinder.tables import Tables, tables
from trainables.data.streams import Stream, below, stream, uniform

MOST_ATTEMPTS = 100_000


class UnplaceableError(ValueError):
    """Two paths of this length could not be placed in this frame."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of one image. Places are (row, column) in the drawn image, before it is resized."""

    tables: Tables
    paths: Ints
    """Paddles of the two long paths, `[2, path length, 3]`: row, column, sprite."""
    distractors: Ints
    """`[distractors placed, distractor length, 3]`."""
    label: int
    """1: the markers are the two ends of one path."""
    marked: int
    """The path whose first end has a marker."""
    ends: Ints
    """The first and the last end of each path, `[2, 2, 2]`."""
    attempts: int
    """How many pairs of paths were tried."""

    @property
    def markers(self) -> Ints:
        """Both markers, `[2, 2]`."""
        other = self.marked if self.label else 1 - self.marked
        return np.stack([self.ends[self.marked, 0], self.ends[other, 1]])

    @property
    def marker_distance(self) -> float:
        """Between the two markers, in pixels of the drawn image."""
        first, second = self.markers
        return float(np.hypot(*(first - second)))


@dataclass(frozen=True, slots=True)
class Matching:
    """How often a pair of paths is kept, by its label and its markers' distance."""

    width: float
    """Of one bin of distance, in pixels."""
    keep: npt.NDArray[np.float64]
    """Probabilities `[2, bins]`."""


KEEP_ALL = Matching(width=1e9, keep=np.ones((2, 1)))


def compose(
    frame: Frame,
    *,
    path_length: int,
    distractors: int,
    distractor_length: int,
    seed: int,
    split: str,
    image: int,
    matching: Matching = KEEP_ALL,
) -> Scene:
    """The content of image number `image` of a split: it depends on nothing but these arguments.

    Raises:
        UnplaceableError: many attempts did not place two such paths.
    """
    state = stream(seed, split, image)
    margin = frame.paddle_margins[below(state, len(frame.paddle_margins))]
    content = tables(frame, margin)
    paths = np.zeros((2, path_length, 3), np.int64)
    others = np.zeros((distractors, distractor_length, 3), np.int64)
    ends = np.zeros((2, 2, 2), np.int64)
    label, marked, attempts, placed = _compose(
        state, content, content.edge, 2 * frame.seed_distance,
        paths, others, ends, matching.width, matching.keep,
    )  # fmt: skip
    if not attempts:
        raise UnplaceableError(
            f"no two paths of {path_length} paddles in {MOST_ATTEMPTS:,} attempts at a window of {frame.window}: "
            f"need a shorter path or a larger window"
        )
    return Scene(
        tables=content,
        paths=paths,
        distractors=others[:placed],
        label=label,
        marked=marked,
        ends=ends,
        attempts=attempts,
    )


def draw(scene: Scene) -> Area:
    """The drawn image, with both markers."""
    return _drawn(scene, scene.paths, scene.distractors, scene.markers)


def draw_segmentation(scene: Scene) -> tuple[Area, Area]:
    """The drawn image with one marker, and the mask of the marked path with its marker (0 or 255)."""
    marker = scene.ends[scene.marked, :1]
    image = _drawn(scene, scene.paths, scene.distractors, marker)
    path = _drawn(scene, scene.paths[scene.marked], scene.distractors[:0], marker)
    return image, np.where(path > 127, np.uint8(255), np.uint8(0))


def _drawn(scene: Scene, paths: Ints, distractors: Ints, markers: Ints) -> Area:
    content, edge = scene.tables, scene.tables.edge
    canvas = np.zeros_like(content.empty)
    _stamp_all(canvas, edge, content, np.concatenate([paths.reshape(-1, 3), distractors.reshape(-1, 3)]), markers)
    return np.ascontiguousarray(canvas[edge:-edge, edge:-edge])


@compiled
def _compose(
    state: Stream,
    content: Tables,
    edge: int,
    border: int,
    paths: Ints,
    distractors: Ints,
    ends: Ints,
    width: float,
    keep: npt.NDArray[np.float64],
) -> tuple[int, int, int, int]:
    """Fill `paths`, `distractors`, `ends`; give label, marked path, pairs tried (0: none fits), distractors placed."""
    occupied = content.empty.copy()
    sums = np.zeros(content.reach.shape[1])
    walks = np.zeros((2, 7), np.int64)
    label, marked = below(state, 2), below(state, 2)
    other = marked if label else 1 - marked
    for attempt in range(1, MOST_ATTEMPTS + 1):
        copy_into(occupied, content.empty)
        if not place_pair(state, content, occupied, edge, border, walks, paths, sums):
            continue
        for path in range(2):
            # A first paddle is drawn from its tail, every other from its head; so these are the path's two ends.
            for axis in range(2):
                ends[path, 0, axis] = paths[path, 0, axis]
                ends[path, 1, axis] = paths[path, paths.shape[1] - 1, axis]
        apart = np.hypot(ends[marked, 0, 0] - ends[other, 1, 0], ends[marked, 0, 1] - ends[other, 1, 1])
        if uniform(state) < keep[label, min(int(apart / width), keep.shape[1] - 1)]:
            placed = place_distractors(state, content, occupied, edge, walks[0], distractors, sums)
            return label, marked, attempt, placed
    return label, marked, 0, 0


@compiled
def _stamp_all(canvas: Area, edge: int, content: Tables, paddles: Ints, markers: Ints) -> None:
    for number in range(len(paddles)):
        paddle = paddles[number]
        stamp(canvas, edge, content.pictures[paddle[2]], paddle[0], paddle[1])
    for number in range(len(markers)):
        stamp(canvas, edge, content.marker, markers[number, 0], markers[number, 1])
