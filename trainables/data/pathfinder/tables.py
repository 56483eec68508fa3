"""Everything about placing paddles that does not depend on where they are, computed once a frame.

A direction is a number: first come the directions that a following paddle can take (from its pivot to one of the
pixels on a circle), then the 360 whole degrees that a first paddle can take. With that, no image needs a sine.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainables.data.pathfinder import sprites
from trainables.data.pathfinder.frame import Frame

Ints = npt.NDArray[np.int64]

# Rounding is done on a coordinate inside the image, as the original does, where tiny errors of sine and cosine vanish.
_INSIDE = 128.0


class Tables(NamedTuple):
    """Offsets are (rows, columns); sprites are numbered; one row a direction, a candidate or a degree."""

    pictures: npt.NDArray[np.uint8]
    """`[sprites, side, side]`."""
    masks: npt.NDArray[np.uint8]
    """Keep-out areas, `[sprites, side, side]`."""
    marker: npt.NDArray[np.uint8]
    step: Ints
    """From a pivot to the next, `[directions, 2]`."""
    candidate: Ints
    """From a pivot to the pixels where the paddle's head may be, `[candidates, 2]`."""
    candidate_sprite: Ints
    """The paddle drawn from that head back towards the pivot, `[candidates]`."""
    reach: Ints
    """The candidates that a paddle in a direction can be followed by, `[directions, most]`."""
    reaches: Ints
    """How many those are, `[directions]`."""
    weight: npt.NDArray[np.float64]
    """Their weights by the angle of the turn, `[directions, most]`."""
    seed_sprite: Ints
    """The first paddle, drawn from its tail, `[360]`."""
    seed_head: Ints
    """From the first tail to its head, `[360, 2]`."""
    seed_pivot: Ints
    """From the first tail to its pivot, `[360, 2]`."""
    footprint: Ints
    """The pixels, from the first tail, that must be free, `[360, most, 2]`."""
    footprints: Ints
    """How many those are, `[360]`."""
    apart: Ints
    """From the first tail of one path to that of the other, `[360, 2]`."""
    soft: Ints
    """The disc in which occupancy lowers a candidate's weight, `[pixels, 2]`."""
    empty: npt.NDArray[np.uint8]
    """Occupancy of an image without paddles: its border is full. Larger than the image by `edge` on every side."""

    @property
    def edge(self) -> int:
        """How far a sprite reaches beyond its centre."""
        return _edge(self.pictures, self.marker)


@lru_cache(maxsize=16)
def tables(frame: Frame, margin: int) -> Tables:
    """The tables of a frame, for one of its margins."""
    length = frame.paddle_length
    half = sprites.paddle_half(length, frame.paddle_thickness, margin)
    candidate = _circle(length + margin)
    ahead = np.arctan2(candidate[:, 0], candidate[:, 1])
    degrees = np.arange(-180, 180)
    directions = np.concatenate([ahead, np.radians(degrees)])

    ends: dict[tuple[int, int], int] = {}

    def sprite(angle: float) -> int:
        return ends.setdefault(sprites.paddle_end(half, length, frame.antialias, angle), len(ends))

    candidate_sprite = np.array([sprite(angle + math.pi) for angle in ahead])
    seed_sprite = np.array([sprite(angle) for angle in np.radians(degrees)])
    drawn = [sprites.paddle(end, half, frame.paddle_thickness, margin, frame.antialias) for end in ends]
    contrasted = [np.minimum(np.rint(picture * frame.contrast), 255).astype(np.uint8) for picture, _ in drawn]
    pictures, masks = np.stack(contrasted), np.stack([mask for _, mask in drawn])
    marker = sprites.marker(frame.marker_radius, frame.antialias)
    empty = np.zeros((frame.window - 2 * frame.padding,) * 2, np.uint8)
    empty = np.pad(np.pad(empty, frame.padding, constant_values=255), _edge(pictures, marker))

    turn = np.abs((ahead - directions[:, None] + np.pi) % (2 * np.pi) - np.pi)
    weights = np.cos(np.minimum(frame.continuity * turn, np.pi / 2)) ** 2
    reach, reaches = _ragged([np.flatnonzero(row > 1e-12) for row in weights])
    seed_head = _ceil(length, np.radians(degrees))
    footprint, footprints = _ragged([_footprint(masks[number], length + margin) for number in seed_sprite])
    return Tables(
        pictures=pictures,
        masks=masks,
        marker=marker,
        step=_ceil(length + 2 * margin, directions),
        candidate=candidate,
        candidate_sprite=candidate_sprite,
        reach=reach,
        reaches=reaches,
        weight=np.take_along_axis(weights, reach, axis=1),
        seed_sprite=seed_sprite,
        seed_head=seed_head,
        seed_pivot=seed_head + _ceil(length + margin, np.radians(degrees) + np.pi),
        footprint=footprint,
        footprints=footprints,
        apart=np.rint(_offset(frame.seed_distance, np.radians(np.arange(360)))).astype(np.int64),
        soft=np.argwhere(sprites.disc(margin)) - margin,
        empty=empty,
    )


def _edge(pictures: npt.NDArray[np.uint8], marker: npt.NDArray[np.uint8]) -> int:
    return int(max(pictures.shape[1], marker.shape[0])) // 2


def _offset(distance: float, angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return distance * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _ceil(distance: float, angles: npt.NDArray[np.float64]) -> Ints:
    return (np.ceil(_INSIDE + _offset(distance, angles)) - _INSIDE).astype(np.int64)


def _circle(radius: int) -> Ints:
    """The pixels on a circle, one for every pixel of arc, truncated and without doubles."""
    angles = np.radians(np.arange(0, 360, 360 / (2 * np.pi * radius)))
    pixels = np.floor(_INSIDE + _offset(radius, angles)) - _INSIDE
    return np.unique(pixels.astype(np.int64), axis=0)


def _footprint(mask: npt.NDArray[np.uint8], reach: int) -> Ints:
    """The pixels, seen from the tail, of a keep-out area: only full ones, on a square of half-side `reach`.

    The original draws this area one pixel off the centre of its square, and so do we.
    """
    cells = np.argwhere(mask == 255) - mask.shape[0] // 2 + 1
    inside: Ints = cells[np.abs(cells).max(axis=1) <= reach]
    return inside


def _ragged(rows: list[Any]) -> tuple[Ints, Ints]:
    """Rows of different lengths as one array, filled up with zeros, and the lengths."""
    lengths = np.array([len(row) for row in rows])
    filled = np.zeros((len(rows), lengths.max(), *rows[0].shape[1:]), np.int64)
    for number, row in enumerate(rows):
        filled[number, : len(row)] = row
    return filled, lengths
