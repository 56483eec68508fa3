"""One cluttered ABC image: its content, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.data.cabc.difficulty import Difficulty
from trainables.data.cabc.letters import CAPITALS, strokes
from trainables.data.cabc.placing import CANVAS, compose
from trainables.data.cabc.shape import SPACING
from trainables.data.streams import below, stream

Area = npt.NDArray[np.uint8]
RING_OUTER, RING_INNER = 11, 8
RING_ENLARGED = 4
RING_HALF = 14


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of one image. Places are (row, column) in the 350x350 image."""

    capitals: tuple[str, str]
    dots: Area
    """Of each letter, `[2, 350, 350]`, 0 or 255."""
    markers: npt.NDArray[np.int64]
    """The first is on the first letter, `[2, 2]`."""
    label: int
    """1: the second marker is on the first letter too."""
    attempts: int
    """How many pairs of letters were tried."""


def compose_scene(difficulty: Difficulty, *, slips: bool, seed: int, split: str, image: int) -> Scene:
    """The content of image number `image` of a split: it depends on nothing but these arguments."""
    state = stream(seed, split, image)
    label = below(state, 2)
    capitals = np.zeros(2, np.int64)
    dots = np.zeros((2, CANVAS, CANVAS), np.uint8)
    markers = np.zeros((2, 2), np.int64)
    attempts = compose(
        state, strokes(SPACING), difficulty.shared.deviations, difficulty.own.deviations,
        np.array(difficulty.radius), difficulty.separation, slips, label, capitals, dots, markers,
    )  # fmt: skip
    assert attempts, f"no attempt of thousands gave an image at {difficulty}"
    return Scene(
        capitals=(CAPITALS[capitals[0]], CAPITALS[capitals[1]]),
        dots=dots,
        markers=markers,
        label=label,
        attempts=attempts,
    )


def draw(scene: Scene) -> Area:
    """The image: white dots, and on them two white rings that are black inside."""
    return _drawn(scene, scene.markers)


def draw_segmentation(scene: Scene) -> tuple[Area, Area]:
    """The image with the first ring alone, and the mask of its letter: the letter's dots and the ring's disc, 255."""
    first = scene.markers[:1]
    disc, _ = _ring()
    mask = np.pad(scene.dots[0], RING_HALF)
    (under,) = _under(mask, first)
    np.maximum(under, disc, out=under)
    mask = np.where(_unpadded(mask) > 127, np.uint8(255), np.uint8(0))
    return _drawn(scene, first), mask


def _drawn(scene: Scene, markers: npt.NDArray[np.int64]) -> Area:
    image = np.pad(scene.dots.max(axis=0), RING_HALF)
    disc, ring = _ring()
    for under in _under(image, markers):
        np.minimum(under, 255 - disc, out=under)
    for under in _under(image, markers):
        np.maximum(under, ring, out=under)
    return _unpadded(image)


def _under(padded: Area, markers: npt.NDArray[np.int64]) -> list[Area]:
    """The parts of a padded image that the rings cover, as views."""
    side = 2 * RING_HALF + 1
    return [padded[row : row + side, column : column + side] for row, column in markers]


def _unpadded(image: Area) -> Area:
    return np.ascontiguousarray(image[RING_HALF:-RING_HALF, RING_HALF:-RING_HALF])


@lru_cache(maxsize=1)
def _ring() -> tuple[Area, Area]:
    """The disc that a ring covers and the ring, drawn enlarged and shrunk as Pathfinder's markers are."""
    side = (2 * RING_HALF + 1) * RING_ENLARGED
    y, x = np.ogrid[:side, :side]
    squared = (y - RING_HALF * RING_ENLARGED) ** 2 + (x - RING_HALF * RING_ENLARGED) ** 2
    outer = squared <= (RING_OUTER * RING_ENLARGED) ** 2
    return _shrunk(outer), _shrunk(outer & (squared > (RING_INNER * RING_ENLARGED) ** 2))


def _shrunk(shape: npt.NDArray[np.bool_]) -> Area:
    picture = Image.fromarray(shape.astype(np.uint8) * 255)
    size = (2 * RING_HALF + 1, 2 * RING_HALF + 1)
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)
