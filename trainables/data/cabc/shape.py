"""One letter as it is drawn: scaled, turned, sheared, warped, and its strokes brought to their width (compiled).

The original does this to a picture four times as large, with morphology and cubic resampling. Here the strokes stay
lines of points with a width, which goes through the same steps: an affine map changes the width by direction, erosion
or dilation by a cross then shifts it so that its mean is that of the target, and the warp moves both edges of the
stroke. What is lost are the warp's own rounding (less than a pixel) and the square ends of strokes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainables.data.cabc.letters import Strokes
from trainables.data.compiled import compiled
from trainables.data.streams import Stream, below, normal, uniform

Floats = npt.NDArray[np.float64]
Area = npt.NDArray[np.uint8]

CAPITAL = 152.0  # pixels; the letters of the reference images are as tall
THICKNESS = 7.0
# The original takes the mean of widths along a medial axis whose branches into corners are thinner than the stroke, so
# what it brings to THICKNESS is thicker. By how much depends on the letter; this makes as many dots as it makes.
MEASURED = 0.92
ENLARGED = 4.0  # the original's pictures, in whose pixels it counts erosions
SUPERSAMPLED = 2
SPACING = 0.5 / CAPITAL  # of the points of a stroke, in heights of a capital
MOST_DEVIATIONS = 2.0
BUMPS = 10
BUMP_SPREAD = 3000.0  # 2 variances: 48,000 in the original's enlarged pixels
WARP_GRID = 4.0
# The original's displacement, in enlarged pixels: 5x5 Sobel derivative (128 times the slope) * 0.24 * major / 200.
WARP = 128 * 0.24 / 200 / ENLARGED
WARP_STEPS = 6


@compiled
def draw_factors(state: Stream, power: float, degrees: float, shear: float) -> Floats:
    """Powers of scale (rows, columns), rotation in degrees and shears (rows, columns), each with this deviation."""
    factors = np.empty(5)
    sign = 1.0 if below(state, 2) else -1.0
    factors[0] = sign * abs(normal(state, power, MOST_DEVIATIONS))
    factors[1] = sign * abs(normal(state, power, MOST_DEVIATIONS))
    factors[2] = normal(state, degrees, MOST_DEVIATIONS)
    sign = 1.0 if below(state, 2) else -1.0
    factors[3] = sign * abs(normal(state, shear, MOST_DEVIATIONS))
    factors[4] = sign * abs(normal(state, shear, MOST_DEVIATIONS))
    return factors


@compiled
def affine(factors: Floats) -> Floats:
    """The matrix `[2, 2]` on (row, column) that scales, then turns, then shears."""
    down, across = 0.5 ** factors[0], 0.5 ** factors[1]
    angle = factors[2] * np.pi / 180
    sine, cosine = np.sin(angle), np.cos(angle)
    matrix = np.empty((2, 2))
    matrix[0, 0], matrix[0, 1] = cosine * down, -sine * across
    matrix[1, 0], matrix[1, 1] = sine * down, cosine * across
    sheared = np.empty((2, 2))
    for column in range(2):
        sheared[0, column] = matrix[0, column] + factors[3] * matrix[1, column]
        sheared[1, column] = matrix[1, column] + factors[4] * matrix[0, column]
    return sheared


@compiled
def _landscape_slopes(state: Stream, height: float, width: float) -> Floats:
    """Slopes `[2, rows, columns]` of a random landscape of 0 to 255, on a grid over a frame of this size."""
    rows, columns = int(height / WARP_GRID) + 2, int(width / WARP_GRID) + 2
    level = np.zeros((rows, columns))
    slopes = np.zeros((2, rows, columns))
    across, across_slope = np.empty(columns), np.empty(columns)
    for _ in range(BUMPS):
        sign = 1.0 if below(state, 2) else -1.0
        row, column = uniform(state) * height, uniform(state) * width
        for j in range(columns):
            d = j * WARP_GRID - column
            across[j] = np.exp(-d * d / BUMP_SPREAD)
            across_slope[j] = -2 * d / BUMP_SPREAD * across[j]
        for i in range(rows):
            d = i * WARP_GRID - row
            down = sign * np.exp(-d * d / BUMP_SPREAD)
            down_slope = -2 * d / BUMP_SPREAD * down
            for j in range(columns):
                level[i, j] += down * across[j]
                slopes[0, i, j] += down_slope * across[j]
                slopes[1, i, j] += down * across_slope[j]
    least, most = level[0, 0], level[0, 0]
    for i in range(rows):
        for j in range(columns):
            least, most = min(least, level[i, j]), max(most, level[i, j])
    factor = 255 / (most - least)
    for axis in range(2):
        for i in range(rows):
            for j in range(columns):
                slopes[axis, i, j] *= factor
    return slopes


@compiled
def _slope(slopes: Floats, axis: int, row: float, column: float) -> float:
    """Bilinear between grid points; beyond the frame as at its border."""
    i = min(max(row / WARP_GRID, 0.0), slopes.shape[1] - 1.001)
    j = min(max(column / WARP_GRID, 0.0), slopes.shape[2] - 1.001)
    top, left = int(i), int(j)
    i, j = i - top, j - left
    above = slopes[axis, top, left] * (1 - j) + slopes[axis, top, left + 1] * j
    under = slopes[axis, top + 1, left] * (1 - j) + slopes[axis, top + 1, left + 1] * j
    return float(above * (1 - i) + under * i)


@compiled
def _warped(slopes: Floats, strength: float, row: float, column: float) -> tuple[float, float]:
    """Where a point lands if every place is filled from the place plus its displacement (solved by iteration)."""
    r, c = row, column
    for _ in range(WARP_STEPS):
        r, c = row - strength * _slope(slopes, 0, r, c), column - strength * _slope(slopes, 1, r, c)
    return r, c


@compiled
def _width_shift(tangents: Floats, matrix: Floats) -> float:
    """How far erosion (negative) or dilation moves each edge of the strokes, in pixels across a row or column."""
    determinant = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    stretched = 0.0
    for number in range(len(tangents)):
        down = matrix[0, 0] * tangents[number, 0] + matrix[0, 1] * tangents[number, 1]
        across = matrix[1, 0] * tangents[number, 0] + matrix[1, 1] * tangents[number, 1]
        stretched += np.hypot(down, across)
    # A direction stretched by s has its width multiplied by determinant / s; the mean is over the stretched length.
    mean = MEASURED * THICKNESS * determinant * len(tangents) / stretched
    missing = (THICKNESS - mean) * ENLARGED
    if abs(missing) < 2:
        return 0.0
    return float(np.rint(missing / 2) / ENLARGED)


@compiled
def draw_letter(state: Stream, strokes: Strokes, letter: int, matrix: Floats) -> Area:
    """The letter, closely cropped: coverage 0 to 255."""
    start, stop = strokes.starts[letter], strokes.starts[letter + 1]
    points, tangents = strokes.points[start:stop], strokes.tangents[start:stop]
    height, width = strokes.boxes[letter, 0] * CAPITAL + THICKNESS, strokes.boxes[letter, 1] * CAPITAL + THICKNESS
    major = max(height, width)
    slack = major / 2
    tall = abs(matrix[0, 0]) * (height + slack) + abs(matrix[0, 1]) * (width + slack)
    wide = abs(matrix[1, 0]) * (height + slack) + abs(matrix[1, 1]) * (width + slack)
    slopes = _landscape_slopes(state, tall, wide)
    strength = WARP * major
    shift = _width_shift(tangents, matrix)
    determinant = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    discs = np.empty((stop - start, 3))
    low_row, low_column, high_row, high_column = 1e9, 1e9, -1e9, -1e9
    for number in range(stop - start):
        row = CAPITAL * (matrix[0, 0] * points[number, 0] + matrix[0, 1] * points[number, 1]) + tall / 2
        column = CAPITAL * (matrix[1, 0] * points[number, 0] + matrix[1, 1] * points[number, 1]) + wide / 2
        down = matrix[0, 0] * tangents[number, 0] + matrix[0, 1] * tangents[number, 1]
        across = matrix[1, 0] * tangents[number, 0] + matrix[1, 1] * tangents[number, 1]
        stretch = np.hypot(down, across)
        down, across = down / stretch, across / stretch
        half = THICKNESS * determinant / stretch / 2 + shift * max(abs(down), abs(across))
        half = max(half, 0.25)
        r, c = _warped(slopes, strength, row, column)
        r1, c1 = _warped(slopes, strength, row - across * half, column + down * half)
        r2, c2 = _warped(slopes, strength, row + across * half, column - down * half)
        radius = np.hypot(r1 - r2, c1 - c2) / 2
        discs[number, 0], discs[number, 1], discs[number, 2] = r, c, radius
        low_row, high_row = min(low_row, r - radius), max(high_row, r + radius)
        low_column, high_column = min(low_column, c - radius), max(high_column, c + radius)
    return _paint(discs, low_row, low_column, high_row, high_column)


@compiled
def _paint(discs: Floats, low_row: float, low_column: float, high_row: float, high_column: float) -> Area:
    rows, columns = int(np.ceil(high_row - low_row)) + 1, int(np.ceil(high_column - low_column)) + 1
    fine = np.zeros((rows * SUPERSAMPLED, columns * SUPERSAMPLED), np.uint8)
    for number in range(len(discs)):
        row = (discs[number, 0] - low_row) * SUPERSAMPLED
        column = (discs[number, 1] - low_column) * SUPERSAMPLED
        radius = discs[number, 2] * SUPERSAMPLED
        for i in range(max(0, int(row - radius)), min(fine.shape[0], int(row + radius) + 1)):
            d = i + 0.5 - row
            if d * d <= radius * radius:
                reach = np.sqrt(radius * radius - d * d)
                first, last = int(np.ceil(column - reach - 0.5)), int(np.floor(column + reach - 0.5))
                for j in range(max(0, first), min(fine.shape[1], last + 1)):
                    fine[i, j] = 1
    covered = np.zeros((rows, columns), np.uint8)
    for i in range(rows):
        for j in range(columns):
            lit = 0
            for k in range(SUPERSAMPLED):
                for m in range(SUPERSAMPLED):
                    lit += fine[i * SUPERSAMPLED + k, j * SUPERSAMPLED + m]
            covered[i, j] = lit * 255 // (SUPERSAMPLED * SUPERSAMPLED)
    return covered
