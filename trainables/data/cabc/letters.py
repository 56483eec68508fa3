"""Two styles of the 26 capitals as strokes without width: drawn for this project, under its own licence.

The original program renders two thin fonts of unknown licence; these letters have their proportions: one style is
geometric (round bowls, pointed corners, widths that vary), the other narrow (upright sides, an I with serifs).
A place is (x, y) in heights of a capital, x to the right and y downwards from the top.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ARC_STEPS = 48


class Strokes(NamedTuple):
    """Points along the strokes of all letters, evenly spaced, about the centres of the letters' boxes."""

    points: Floats
    """`[points, 2]`: row, column, in heights of a capital."""
    tangents: Floats
    """Unit vectors along the stroke at each point, `[points, 2]`."""
    starts: npt.NDArray[np.int64]
    """Where each letter's points begin, style by style, `[53]` with the end of the last."""
    boxes: Floats
    """Height and width of each letter, `[52, 2]`."""


def _bar(*places: tuple[float, float]) -> Floats:
    return np.array(places, float)


def _bow(x: float, y: float, across: float, down: float, start: float, stop: float) -> Floats:
    """An arc about (x, y) with half-axes `across` and `down`: degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, ARC_STEPS))
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


def _geometric() -> dict[str, list[Floats]]:
    round_o = _bow(0.5, 0.5, 0.5, 0.5, 0, 360)
    p = [_bar((0, 1), (0, 0), (0.24, 0)), _bow(0.24, 0.27, 0.25, 0.27, -90, 90), _bar((0, 0.54), (0.24, 0.54))]
    return {
        "A": [_bar((0, 1), (0.4, 0), (0.8, 1)), _bar((0.13, 0.68), (0.67, 0.68))],
        "B": [
            _bar((0.26, 0), (0, 0), (0, 1), (0.28, 1)),
            _bar((0, 0.47), (0.28, 0.47)),
            _bow(0.26, 0.235, 0.22, 0.235, -90, 90),
            _bow(0.28, 0.735, 0.26, 0.265, -90, 90),
        ],
        "C": [_bow(0.5, 0.5, 0.5, 0.5, 45, 315)],
        "D": [_bar((0.22, 0), (0, 0), (0, 1), (0.22, 1)), _bow(0.22, 0.5, 0.5, 0.5, -90, 90)],
        "E": [_bar((0.45, 0), (0, 0), (0, 1), (0.45, 1)), _bar((0, 0.48), (0.42, 0.48))],
        "F": [_bar((0.44, 0), (0, 0), (0, 1)), _bar((0, 0.48), (0.4, 0.48))],
        "G": [_bow(0.5, 0.5, 0.5, 0.5, 0, 310), _bar((0.55, 0.5), (1, 0.5))],
        "H": [_bar((0, 0), (0, 1)), _bar((0.62, 0), (0.62, 1)), _bar((0, 0.48), (0.62, 0.48))],
        "I": [_bar((0, 0), (0, 1))],
        "J": [_bar((0.35, 0), (0.35, 0.78)), _bow(0.15, 0.78, 0.2, 0.22, 0, 150)],
        "K": [_bar((0, 0), (0, 1)), _bar((0.55, 0), (0, 0.55)), _bar((0.16, 0.4), (0.62, 1))],
        "L": [_bar((0, 0), (0, 1), (0.42, 1))],
        "M": [_bar((0, 1), (0.18, 0), (0.5, 0.8), (0.82, 0), (1, 1))],
        "N": [_bar((0, 1), (0, 0), (0.72, 1), (0.72, 0))],
        "O": [round_o],
        "P": p,
        "Q": [round_o, _bar((0.55, 0.62), (0.95, 1))],
        "R": [*p, _bar((0.2, 0.54), (0.56, 1))],
        "S": [_bow(0.25, 0.25, 0.22, 0.25, -40, -270), _bow(0.25, 0.75, 0.25, 0.25, -90, 140)],
        "T": [_bar((0, 0), (0.6, 0)), _bar((0.3, 0), (0.3, 1))],
        "U": [_bar((0, 0), (0, 0.7)), _bow(0.3, 0.7, 0.3, 0.3, 180, 0), _bar((0.6, 0.7), (0.6, 0))],
        "V": [_bar((0, 0), (0.36, 1), (0.72, 0))],
        "W": [_bar((0, 0), (0.27, 1), (0.52, 0.1), (0.77, 1), (1.04, 0))],
        "X": [_bar((0, 0), (0.66, 1)), _bar((0.64, 0), (0, 1))],
        "Y": [_bar((0, 0), (0.33, 0.5), (0.33, 1)), _bar((0.33, 0.5), (0.66, 0))],
        "Z": [_bar((0, 0), (0.6, 0), (0, 1), (0.62, 1))],
    }


def _narrow() -> dict[str, list[Floats]]:
    left_half = [_bow(0.31, 0.33, 0.31, 0.33, -35, -180), _bar((0, 0.33), (0, 0.67))]
    o = [
        _bow(0.32, 0.34, 0.32, 0.34, -180, 0),
        _bar((0.64, 0.34), (0.64, 0.66)),
        _bow(0.32, 0.66, 0.32, 0.34, 0, 180),
        _bar((0, 0.66), (0, 0.34)),
    ]
    p = [_bar((0, 1), (0, 0), (0.3, 0)), _bow(0.3, 0.27, 0.25, 0.27, -90, 90), _bar((0.3, 0.54), (0, 0.54))]
    return {
        "A": [_bar((0, 1), (0.34, 0), (0.68, 1)), _bar((0.12, 0.65), (0.56, 0.65))],
        "B": [
            _bar((0.3, 0), (0, 0), (0, 1), (0.32, 1)),
            _bar((0, 0.49), (0.32, 0.49)),
            _bow(0.3, 0.245, 0.22, 0.245, -90, 90),
            _bow(0.32, 0.745, 0.25, 0.255, -90, 90),
        ],
        "C": [*left_half, _bow(0.31, 0.67, 0.31, 0.33, 180, 35)],
        "D": [
            _bar((0.25, 0), (0, 0), (0, 1), (0.25, 1)),
            _bow(0.25, 0.35, 0.34, 0.35, -90, 0),
            _bar((0.59, 0.35), (0.59, 0.65)),
            _bow(0.25, 0.65, 0.34, 0.35, 0, 90),
        ],
        "E": [_bar((0.5, 0), (0, 0), (0, 1), (0.5, 1)), _bar((0, 0.49), (0.44, 0.49))],
        "F": [_bar((0.5, 0), (0, 0), (0, 1)), _bar((0, 0.5), (0.43, 0.5))],
        "G": [*left_half, _bow(0.31, 0.67, 0.31, 0.33, 180, 0), _bar((0.62, 0.67), (0.62, 0.54), (0.34, 0.54))],
        "H": [_bar((0, 0), (0, 1)), _bar((0.58, 0), (0.58, 1)), _bar((0, 0.49), (0.58, 0.49))],
        "I": [_bar((0, 0), (0.3, 0)), _bar((0.15, 0), (0.15, 1)), _bar((0, 1), (0.3, 1))],
        "J": [_bar((0.48, 0), (0.48, 0.72)), _bow(0.24, 0.72, 0.24, 0.28, 0, 175)],
        "K": [_bar((0, 0), (0, 1)), _bar((0.53, 0), (0, 0.6)), _bar((0.19, 0.39), (0.56, 1))],
        "L": [_bar((0, 0), (0, 1), (0.48, 1))],
        "M": [_bar((0, 1), (0, 0), (0.36, 0.65), (0.72, 0), (0.72, 1))],
        "N": [_bar((0, 1), (0, 0), (0.58, 1), (0.58, 0))],
        "O": o,
        "P": p,
        "Q": [*o, _bar((0.38, 0.73), (0.68, 1.05))],
        "R": [*p, _bar((0.3, 0.54), (0.56, 1))],
        "S": [_bow(0.28, 0.25, 0.26, 0.25, -25, -270), _bow(0.28, 0.75, 0.28, 0.25, -90, 155)],
        "T": [_bar((0, 0), (0.62, 0)), _bar((0.31, 0), (0.31, 1))],
        "U": [_bar((0, 0), (0, 0.7)), _bow(0.29, 0.7, 0.29, 0.3, 180, 0), _bar((0.58, 0.7), (0.58, 0))],
        "V": [_bar((0, 0), (0.32, 1), (0.64, 0))],
        "W": [_bar((0, 0), (0.2, 1), (0.44, 0.25), (0.68, 1), (0.88, 0))],
        "X": [_bar((0, 0), (0.6, 1)), _bar((0.58, 0), (0, 1))],
        "Y": [_bar((0, 0), (0.3, 0.54), (0.3, 1)), _bar((0.3, 0.54), (0.6, 0))],
        "Z": [_bar((0, 0), (0.56, 0), (0, 1), (0.58, 1))],
    }


@lru_cache(maxsize=4)
def strokes(spacing: float) -> Strokes:
    """Both styles, with a point every `spacing` heights of a capital."""
    points, tangents, starts, boxes = [], [], [0], []
    for style in (_geometric(), _narrow()):
        for capital in CAPITALS:
            pieces = [_sample(line, spacing) for line in style[capital]]
            places = np.concatenate([piece[0] for piece in pieces])
            low, high = places.min(axis=0), places.max(axis=0)
            points.append((places - (low + high) / 2)[:, ::-1])
            tangents.append(np.concatenate([piece[1] for piece in pieces])[:, ::-1])
            starts.append(starts[-1] + len(places))
            boxes.append((high - low)[::-1])
    return Strokes(
        np.ascontiguousarray(np.concatenate(points)),
        np.ascontiguousarray(np.concatenate(tangents)),
        np.array(starts),
        np.array(boxes),
    )


def _sample(line: Floats, spacing: float) -> tuple[Floats, Floats]:
    """Points and unit tangents along a polyline."""
    steps = np.diff(line, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    at = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / spacing)) + 1))
    piece = np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(steps) - 1)
    unit = steps[piece] / lengths[piece, None]
    return line[piece] + unit * (at - along[piece])[:, None], unit
