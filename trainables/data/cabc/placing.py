"""Where the two letters go, their dots and their markers (compiled).

The steps and the limits are those of the original program, and by default its two slips too: the first letter's angle
is drawn from the range of radii (so it is always below and right of the centre), and both letters are placed by the
centre of mass of the second.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainables.data.cabc.letters import Strokes
from trainables.data.cabc.shape import affine, draw_factors, draw_letter
from trainables.data.compiled import compiled
from trainables.data.streams import Stream, below, normal, uniform

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Area = npt.NDArray[np.uint8]

CANVAS = 350
STYLES, LETTERS = 2, 26
MOST_ATTEMPTS = 2000
PLACINGS = 10
NEAR = 9  # pixels by which strokes are widened before their overlap is measured
LEAST_OVERLAP, MOST_OVERLAP = 0.01, 0.15
CELL = 5
OMITTED = 0.2
ON = 0.3
JITTER, MOST_JITTER = 2.0, 4.0
FAR = 14  # pixels from the other letter's dots at which a zone is a letter's own
CENTRAL = CANVAS / 3
LEAST_DISTANCE = 23
DISTANCES = 10


@compiled
def distances_to(area: Area, most: int) -> Area:
    """City-block distance of every pixel to the nearest lit one, at most `most` + 1."""
    rows, columns = area.shape
    far = np.empty((rows, columns), np.uint8)
    for i in range(rows):
        for j in range(columns):
            near = 0 if area[i, j] else most + 1
            if i > 0:
                near = min(near, far[i - 1, j] + 1)
            if j > 0:
                near = min(near, far[i, j - 1] + 1)
            far[i, j] = near
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            near = int(far[i, j])
            if i < rows - 1:
                near = min(near, far[i + 1, j] + 1)
            if j < columns - 1:
                near = min(near, far[i, j + 1] + 1)
            far[i, j] = near
    return far


@compiled
def _centre_of_mass(letter: Area) -> tuple[int, int]:
    rows, columns, lit = 0, 0, 0
    for i in range(letter.shape[0]):
        for j in range(letter.shape[1]):
            if letter[i, j]:
                rows, columns, lit = rows + i, columns + j, lit + 1
    return int(np.rint(rows / lit)), int(np.rint(columns / lit))


@compiled
def _widened(letter: Area) -> tuple[Area, int]:
    """1 within NEAR pixels of the strokes, on an array larger by NEAR on every side, and how many those are."""
    area = np.zeros((letter.shape[0] + 2 * NEAR, letter.shape[1] + 2 * NEAR), np.uint8)
    for i in range(letter.shape[0]):
        for j in range(letter.shape[1]):
            area[i + NEAR, j + NEAR] = letter[i, j]
    far = distances_to(area, NEAR)
    lit = 0
    for i in range(area.shape[0]):
        for j in range(area.shape[1]):
            near = far[i, j] <= NEAR
            area[i, j] = near
            lit += near
    return area, lit


@compiled
def _overlap(first: Area, first_at: Ints, second: Area, second_at: Ints) -> int:
    shared = 0
    row, column = second_at[0] - first_at[0], second_at[1] - first_at[1]
    for i in range(max(0, row), min(first.shape[0], row + second.shape[0])):
        for j in range(max(0, column), min(first.shape[1], column + second.shape[1])):
            shared += first[i, j] & second[i - row, j - column]
    return shared


@compiled
def _place(state: Stream, first: Area, second: Area, radii: Ints, separation: int, slips: bool, corners: Ints) -> int:
    """Fill the letters' upper left corners `[2, 2]`; the radius they are at, or 0 if they found no place."""
    wide_first, area_first = _widened(first)
    wide_second, area_second = _widened(second)
    row_second, column_second = _centre_of_mass(second)
    row_first, column_first = (row_second, column_second) if slips else _centre_of_mass(first)
    outside, overlapping = 0, 0
    while outside < PLACINGS and overlapping < PLACINGS:
        radius = radii[0] + below(state, radii[1] - radii[0])
        # The slip: the range of radii, in pixels, is taken for one of angles, in degrees.
        degrees = radii[0] + below(state, radii[1] - radii[0]) if slips else below(state, 360)
        others = degrees + separation + below(state, 361 - 2 * separation)
        centre = CANVAS // 2
        corners[0, 0] = int(np.rint(centre + radius * np.sin(np.radians(degrees)))) - row_first
        corners[0, 1] = int(np.rint(centre + radius * np.cos(np.radians(degrees)))) - column_first
        corners[1, 0] = int(np.rint(centre + radius * np.sin(np.radians(others)))) - row_second
        corners[1, 1] = int(np.rint(centre + radius * np.cos(np.radians(others)))) - column_second
        inside = (
            min(corners[0, 0], corners[0, 1], corners[1, 0], corners[1, 1]) >= 0
            and corners[0, 0] + first.shape[0] <= CANVAS
            and corners[0, 1] + first.shape[1] <= CANVAS
            and corners[1, 0] + second.shape[0] <= CANVAS
            and corners[1, 1] + second.shape[1] <= CANVAS
        )
        if not inside:
            outside += 1
            continue
        shared = _overlap(wide_first, corners[0], wide_second, corners[1])
        least, most = min(shared / area_first, shared / area_second), max(shared / area_first, shared / area_second)
        if least < MOST_OVERLAP and most < MOST_OVERLAP and most >= LEAST_OVERLAP:
            return int(radius)
        overlapping += 1
    return 0


@compiled
def _is_on(letter: Area, corner: Ints, row: int, column: int) -> bool:
    """Whether strokes cover enough of the cell with this upper left corner."""
    covered = 0
    for i in range(row - corner[0], row - corner[0] + CELL):
        for j in range(column - corner[1], column - corner[1] + CELL):
            if 0 <= i < letter.shape[0] and 0 <= j < letter.shape[1]:
                covered += letter[i, j]
    return covered > ON * 255 * CELL * CELL


@compiled
def _dot(state: Stream, first: Area, second: Area, corners: Ints, dots: Area) -> None:
    """Fill the dots of each letter, `[2, CANVAS, CANVAS]` (0 or 255)."""
    for row in range(0, CANVAS, CELL):
        for column in range(0, CANVAS, CELL):
            if uniform(state) < OMITTED:
                continue
            on_first = _is_on(first, corners[0], row, column)
            on_second = _is_on(second, corners[1], row, column)
            if on_first or on_second:
                down = int(min(max(normal(state, JITTER, 1e9), -MOST_JITTER), MOST_JITTER))
                across = int(min(max(normal(state, JITTER, 1e9), -MOST_JITTER), MOST_JITTER))
                for i in range(max(0, row + down), min(CANVAS, row + down + CELL)):
                    for j in range(max(0, column + across), min(CANVAS, column + across + CELL)):
                        if on_first:
                            dots[0, i, j] = 255
                        if on_second:
                            dots[1, i, j] = 255


@compiled
def _mark_first(state: Stream, dots: Area, far: Area, marker: Ints) -> bool:
    """The first marker: in the first letter's own zone, rather in the middle of the image."""
    total = 0.0
    weights = np.zeros(CANVAS * CANVAS)
    for i in range(CANVAS):
        for j in range(CANVAS):
            if dots[i, j] and far[i, j] > FAR:
                d = (i - CANVAS // 2) ** 2 + (j - CANVAS // 2) ** 2
                total += np.exp(-d / (2 * CENTRAL * CENTRAL))
            weights[i * CANVAS + j] = total
    if total == 0.0:
        return False
    drawn = uniform(state) * total
    place = np.searchsorted(weights, drawn, side="right")
    marker[0], marker[1] = place // CANVAS, place % CANVAS
    return True


@compiled
def _mark_second(state: Stream, dots: Area, fars: Area, radius: int, label: int, markers: Ints) -> bool:
    """The second marker: on a ring about the first that meets both letters' own zones, so distance tells nothing."""
    row, column = markers[0, 0], markers[0, 1]
    most = min(max(row, column, CANVAS - row, CANVAS - column), 3 * radius)
    if most <= LEAST_DISTANCE:
        return False
    chosen = 0 if label else 1
    places = np.empty((8 * CANVAS, 2), np.int64)
    for _ in range(DISTANCES):
        distance = LEAST_DISTANCE + below(state, most - LEAST_DISTANCE)
        met, found = 0, 0
        inner, outer = (distance - 1) ** 2, (distance + 1) ** 2
        for i in range(max(0, row - distance - 1), min(CANVAS, row + distance + 2)):
            for j in range(max(0, column - distance - 1), min(CANVAS, column + distance + 2)):
                if inner <= (i - row) ** 2 + (j - column) ** 2 <= outer:
                    for letter in range(2):
                        if dots[letter, i, j] and fars[1 - letter, i, j] > FAR:
                            met |= 1 << letter
                            if letter == chosen:
                                places[found, 0], places[found, 1] = i, j
                                found += 1
        if met == 3:
            drawn = below(state, found)
            markers[1, 0], markers[1, 1] = places[drawn, 0], places[drawn, 1]
            return True
    return False


@compiled
def compose(
    state: Stream,
    strokes: Strokes,
    shared: Floats,
    own: Floats,
    radii: Ints,
    separation: int,
    slips: bool,
    label: int,
    capitals: Ints,
    dots: Area,
    markers: Ints,
) -> int:
    """Fill `capitals` `[2]`, `dots` `[2, CANVAS, CANVAS]` and `markers` `[2, 2]`; the attempts it took (0: none fits).

    An attempt that fails anywhere begins again with other letters.
    """
    corners = np.zeros((2, 2), np.int64)
    fars = np.empty((2, CANVAS, CANVAS), np.uint8)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        style = below(state, STYLES)
        capitals[0], capitals[1] = below(state, LETTERS), below(state, LETTERS)
        common = draw_factors(state, shared[0], shared[1], shared[2])
        first_map = affine(common + draw_factors(state, own[0], own[1], own[2]))
        second_map = affine(common + draw_factors(state, own[0], own[1], own[2]))
        first = draw_letter(state, strokes, style * LETTERS + capitals[0], first_map)
        second = draw_letter(state, strokes, style * LETTERS + capitals[1], second_map)
        if max(first.shape[0], first.shape[1], second.shape[0], second.shape[1]) > CANVAS:
            continue
        radius = _place(state, first, second, radii, separation, slips, corners)
        if radius == 0:
            continue
        for letter in range(2):
            for i in range(CANVAS):
                for j in range(CANVAS):
                    dots[letter, i, j] = 0
        _dot(state, first, second, corners, dots)
        for letter in range(2):
            far = distances_to(dots[letter], FAR)
            for i in range(CANVAS):
                for j in range(CANVAS):
                    fars[letter, i, j] = far[i, j]
        if not _mark_first(state, dots[0], fars[1], markers[0]):
            continue
        if _mark_second(state, dots, fars, radius, label, markers):
            return attempt
    return 0
