"""How a paddle and a marker look: small grey pictures, drawn enlarged and shrunk with a Lanczos filter.

Every grey level is that of the original program: its drawing library (Pillow), its shapes, its 8-bit rounding.
Pictures are square, of odd side, and have their point of reference at the centre.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Picture = npt.NDArray[np.uint8]


def paddle_half(length: int, thickness: float, margin: int) -> int:
    """Half the side of a paddle's picture, which holds the paddle in every direction from its centre."""
    return length + math.ceil(thickness) + margin


def paddle_end(half: int, length: int, antialias: int, angle: float) -> tuple[int, int]:
    """Where a paddle that leaves the centre at `angle` ends on the enlarged canvas (row, column)."""
    centre = float(half * antialias)
    reach = float(length * antialias)
    return math.ceil(centre + reach * math.sin(angle)), math.ceil(centre + reach * math.cos(angle))


def paddle(end: tuple[int, int], half: int, thickness: float, margin: int, antialias: int) -> tuple[Picture, Picture]:
    """A paddle from the centre to `end` (on the enlarged canvas): its picture and its keep-out mask."""
    centre = half * antialias
    canvas = Image.new("L", (2 * centre + 1, 2 * centre + 1))
    ImageDraw.Draw(canvas).line([(centre, centre), end[::-1]], fill=255, width=round(thickness * antialias))
    line = np.asarray(canvas)
    return _shrink(line, half), _shrink(cv2.dilate(line, disc(margin * antialias)), half)


def marker(radius: float, antialias: int) -> Picture:
    """A filled disc, whose centre is the first of a pixel's parts on the enlarged canvas, so it leans up and left."""
    half = math.ceil(radius) + 2
    y, x = np.ogrid[: (2 * half + 1) * antialias, : (2 * half + 1) * antialias]
    centre = half * antialias
    inside = (y - centre) ** 2 + (x - centre) ** 2 <= (radius * antialias) ** 2
    return _shrink(inside.astype(np.uint8) * 255, half)


def disc(radius: int) -> Picture:
    """1 at the pixels of a square whose centres are within `radius` of its centre."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y * y + x * x <= radius * radius, dtype=np.uint8)


def _shrink(picture: npt.ArrayLike, half: int) -> Picture:
    side = 2 * half + 1
    shrunk = Image.fromarray(np.asarray(picture)).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(shrunk, dtype=np.uint8)
