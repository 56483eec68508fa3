"""Where the paddles go: two long paths, then the distractors (compiled).

The steps, their order and their slips are those of the original program; only the work is less: areas are tested
where a paddle may land instead of over the whole image, and a free place is found by drawing places until one is free.

`occupied` (uint8, 255: full) is larger than the image by `tables.edge` on every side, so that a sprite whose centre is
in the image can be stamped without clipping. A path being drawn is a row of seven numbers (PIVOT_ROW, ...). Its most
recent paddle is not in `occupied` yet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainables.data.compiled import compiled
from trainables.data.pathfinder.tables import Tables
from trainables.data.streams import Stream, below, uniform

Ints = npt.NDArray[np.int64]
Area = npt.NDArray[np.uint8]

PIVOT_ROW, PIVOT_COLUMN, DIRECTION, LAST_ROW, LAST_COLUMN, LAST_SPRITE, COUNT = range(7)
PADDLE_DRAWS = 3
DISTRACTOR_DRAWS = 5
FREE_DRAWS = 64
FREE_LEVEL = 76  # occupancy of at most 0.3
CLASH_LEVEL = 459  # two masks that sum to 1.8
LEAST_WEIGHT = 1e-4
LEAST_FREE = 0.01  # of all pixels, or no distractor is begun


@compiled
def stamp(area: Area, edge: int, sprite: Area, row: int, column: int) -> None:
    """The pixelwise maximum of `area` and a sprite centred at (row, column) of the image."""
    half = sprite.shape[0] // 2
    for i in range(sprite.shape[0]):
        for j in range(sprite.shape[1]):
            r, c = row + edge - half + i, column + edge - half + j
            area[r, c] = max(area[r, c], sprite[i, j])


@compiled
def copy_into(area: Area, source: Area) -> None:
    """`area[:] = source`, which numba takes seconds to compile (for the error message that it could need)."""
    for i in range(area.shape[0]):
        for j in range(area.shape[1]):
            area[i, j] = source[i, j]


@compiled
def _clashes(occupied: Area, edge: int, mask: Area, row: int, column: int) -> bool:
    half = mask.shape[0] // 2
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            if np.int64(occupied[row + edge - half + i, column + edge - half + j]) + mask[i, j] >= CLASH_LEVEL:
                return True
    return False


@compiled
def _is_free(tables: Tables, occupied: Area, edge: int, border: int, degree: int, row: int, column: int) -> bool:
    """Whether a first paddle with its tail here would touch neither the border nor anything occupied."""
    size = occupied.shape[0] - 2 * edge
    for number in range(tables.footprints[degree]):
        r = row + tables.footprint[degree, number, 0]
        c = column + tables.footprint[degree, number, 1]
        if r < border or c < border or r >= size - border or c >= size - border:
            return False
        if occupied[r + edge, c + edge] > FREE_LEVEL:
            return False
    return True


@compiled
def _free_place(
    state: Stream, tables: Tables, occupied: Area, edge: int, border: int, least: int, degree: int
) -> tuple[int, int]:
    """A pixel drawn uniformly from those where a first paddle may begin, or (-1, -1) if there are fewer than `least`.

    Drawing places until one is free is uniform too; all are counted only where that does not succeed soon. (So the
    rule of `least` can be missed, where hardly anything is free; the original counts always.)
    """
    size = occupied.shape[0] - 2 * edge
    for _ in range(FREE_DRAWS):
        row, column = below(state, size), below(state, size)
        if _is_free(tables, occupied, edge, border, degree, row, column):
            return row, column
    free = 0
    for place in range(size * size):
        free += _is_free(tables, occupied, edge, border, degree, place // size, place % size)
    if free < least:
        return -1, -1
    chosen = below(state, free)
    for place in range(size * size):
        if _is_free(tables, occupied, edge, border, degree, place // size, place % size):
            if chosen == 0:
                return place // size, place % size
            chosen -= 1
    return -1, -1


@compiled
def _begin(tables: Tables, path: Ints, paddles: Ints, degree: int, row: int, column: int) -> None:
    """The first paddle of a path, from its tail at (row, column)."""
    path[PIVOT_ROW] = row + tables.seed_pivot[degree, 0]
    path[PIVOT_COLUMN] = column + tables.seed_pivot[degree, 1]
    path[DIRECTION] = len(tables.candidate) + degree
    path[COUNT] = 0
    _keep(path, paddles, row, column, tables.seed_sprite[degree])


@compiled
def _keep(path: Ints, paddles: Ints, row: int, column: int, sprite: int) -> None:
    path[LAST_ROW], path[LAST_COLUMN], path[LAST_SPRITE] = row, column, sprite
    paddles[path[COUNT], 0], paddles[path[COUNT], 1], paddles[path[COUNT], 2] = row, column, sprite
    path[COUNT] += 1


@compiled
def _stamp_last(tables: Tables, occupied: Area, edge: int, path: Ints) -> None:
    stamp(occupied, edge, tables.masks[path[LAST_SPRITE]], path[LAST_ROW], path[LAST_COLUMN])


@compiled
def _extend(
    state: Stream, tables: Tables, occupied: Area, edge: int, path: Ints, paddles: Ints, sums: npt.NDArray[np.float64]
) -> bool:
    """One more paddle; False if there is no place for it."""
    size = occupied.shape[0] - 2 * edge
    direction = path[DIRECTION]
    pivot_row = path[PIVOT_ROW] + tables.step[direction, 0]
    pivot_column = path[PIVOT_COLUMN] + tables.step[direction, 1]
    total = 0.0
    for number in range(tables.reaches[direction]):
        candidate = tables.reach[direction, number]
        row = pivot_row + tables.candidate[candidate, 0]
        column = pivot_column + tables.candidate[candidate, 1]
        if 0 <= row < size and 0 <= column < size:
            fullest = 0
            for pixel in range(len(tables.soft)):
                level = occupied[row + edge + tables.soft[pixel, 0], column + edge + tables.soft[pixel, 1]]
                fullest = max(fullest, level)
            total += (1 - fullest / 255) * tables.weight[direction, number]
        sums[number] = total
    if total < LEAST_WEIGHT:
        return False
    for _ in range(PADDLE_DRAWS):
        drawn = uniform(state) * total
        number = 0
        while sums[number] <= drawn:
            number += 1
        candidate = tables.reach[direction, number]
        row = pivot_row + tables.candidate[candidate, 0]
        column = pivot_column + tables.candidate[candidate, 1]
        sprite = tables.candidate_sprite[candidate]
        if not _clashes(occupied, edge, tables.masks[sprite], row, column):
            _stamp_last(tables, occupied, edge, path)
            path[PIVOT_ROW], path[PIVOT_COLUMN], path[DIRECTION] = pivot_row, pivot_column, candidate
            _keep(path, paddles, row, column, sprite)
            return True
    return False


@compiled
def place_pair(
    state: Stream,
    tables: Tables,
    occupied: Area,
    edge: int,
    border: int,
    paths: Ints,
    paddles: Ints,
    sums: npt.NDArray[np.float64],
) -> bool:
    """One attempt at the two long paths: `paddles` `[2, n, 3]` (row, column, sprite) of the first and the second."""
    degree = below(state, 360)
    row, column = _free_place(state, tables, occupied, edge, border, 1, degree)
    if row < 0:
        return False
    _begin(tables, paths[0], paddles[0], degree, row, column)
    apart = below(state, 360)
    # The second path's first paddle is tested against nothing.
    _begin(
        tables,
        paths[1],
        paddles[1],
        below(state, 360),
        row + tables.apart[apart, 0],
        column + tables.apart[apart, 1],
    )
    for _ in range(1, paddles.shape[1]):
        for path in range(2):
            if not _extend(state, tables, occupied, edge, paths[path], paddles[path], sums):
                return False
    # The last paddle of the first path is forgotten: a distractor may touch it.
    _stamp_last(tables, occupied, edge, paths[1])
    return True


@compiled
def place_distractors(
    state: Stream,
    tables: Tables,
    occupied: Area,
    edge: int,
    path: Ints,
    paddles: Ints,
    sums: npt.NDArray[np.float64],
) -> int:
    """Distractors `paddles` `[distractors, n, 3]`; how many were placed (one that fails too often is left out)."""
    size = occupied.shape[0] - 2 * edge
    least = max(1, int(LEAST_FREE * size * size))
    before = occupied.copy()
    placed = 0
    for _ in range(paddles.shape[0]):
        for _ in range(DISTRACTOR_DRAWS):
            degree = below(state, 360)
            row, column = _free_place(state, tables, occupied, edge, 1, least, degree)
            if row < 0:
                continue
            _begin(tables, path, paddles[placed], degree, row, column)
            whole = True
            for _ in range(1, paddles.shape[1]):
                if not _extend(state, tables, occupied, edge, path, paddles[placed], sums):
                    whole = False
                    break
            if whole:
                _stamp_last(tables, occupied, edge, path)
                for number in range(paddles.shape[1]):
                    paddle = paddles[placed, number]
                    stamp(before, edge, tables.masks[paddle[2]], paddle[0], paddle[1])
                placed += 1
                break
            copy_into(occupied, before)
    return placed
