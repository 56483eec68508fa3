"""What the trials of a sweep say of its points, each of which is run by one trial or, with repeats, by several."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, final

from service.domain import Trial, TrialState

Mode = Literal["max", "min"]
Aggregate = Literal["mean", "best"]


class Known(NamedTuple):
    """A point and its values, wherever they are from."""

    point: Mapping[str, Any]
    values: tuple[float, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A point with at least one completed trial. Each tuple of numbers has one an objective, in the spec's order."""

    number: int
    """Of the point's first trial."""
    point: Mapping[str, Any]
    values: tuple[float, ...]
    """What the point is compared by: the mean or the best of its trials, as the spec says."""
    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...] | None
    """Of a sample (n - 1); None: only one trial has completed."""
    best: tuple[float, ...]
    trials: tuple[Trial, ...]
    """The completed ones, by repeat."""
    front: int = 1
    """1: no point is at least as good in all objectives and better in one; 2: only points of front 1 are; and so on."""


def result(trials: Sequence[Trial], *, modes: Sequence[Mode], aggregate: Aggregate) -> Result | None:
    """What the trials of one point come to; None: none of them has completed.

    Trials that failed or were stopped are left out. With several objectives, `aggregate: best` takes the values of the
    trial that is best by the first one, while `best` is the best of each by itself.
    """
    completed = sorted((trial for trial in trials if trial.state is TrialState.COMPLETED), key=lambda one: one.repeat)
    if not completed:
        return None
    values = [_values(trial) for trial in completed]
    columns = list(zip(*values, strict=True))
    first = max if modes[0] == "max" else min
    mean = tuple(map(statistics.fmean, columns))
    return Result(
        number=first_number(completed[0]),
        point=completed[0].point,
        values=mean if aggregate == "mean" else first(values, key=lambda one: one[0]),
        mean=mean,
        standard_deviation=tuple(map(statistics.stdev, columns)) if len(completed) > 1 else None,
        best=tuple(max(c) if mode == "max" else min(c) for c, mode in zip(columns, modes, strict=True)),
        trials=tuple(completed),
    )


def ranked(
    trials: Iterable[Trial], *, modes: Sequence[Mode], aggregate: Aggregate, known: Iterable[Result] = ()
) -> list[Result]:
    """The results of all points by front, then by their first value, best first; equals by number.

    With one objective the fronts are the ranks: equals share one.

    Args:
        trials: of the points; those of one may come in any order.
        modes: one an objective.
        aggregate: what a point counts with.
        known: what came of other trials of the same sweep before. It is placed anew, but not computed again.
    """
    results = {one.number: one for one in known}
    groups: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[first_number(trial)].append(trial)
    for number, group in groups.items():
        before = results[number].trials if number in results else ()
        now = result([*before, *group], modes=modes, aggregate=aggregate)
        if now is not None:
            results[number] = now
    found = list(results.values())
    signs = [-1.0 if mode == "max" else 1.0 for mode in modes]
    costs = [tuple([sign * value for sign, value in zip(signs, one.values, strict=True)]) for one in found]
    order = sorted(zip(fronts(costs), [cost[0] for cost in costs], results, strict=True))
    return [
        one if one.front == front else replace(one, front=front)
        for front, one in ((front, results[number]) for front, _, number in order)
    ]


def fronts(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """The front, from 1 on, of each point: all that only points of earlier fronts dominate. Less is better.

    For one or two numbers a point in O(n log n) (Jensen 2003, "Reducing the run-time complexity of multiobjective EAs",
    section III); for more in O(n^2).
    """
    placed = [0] * len(costs)
    order = sorted(range(len(costs)), key=costs.__getitem__)  # nothing is dominated by what comes after it
    if not costs or len(costs[0]) > 2:
        found: list[list[tuple[float, ...]]] = []
        for i in order:
            front = bisect_left(found, True, key=lambda members: not _dominated(costs[i], members))
            if front == len(found):
                found.append([])
            found[front].append(costs[i])
            placed[i] = front + 1
        return placed
    # With two numbers the newest member of a front has its lowest second one, and so dominates whatever any member
    # does; from front to front these only rise.
    lowest: list[float] = []
    for before, i in zip([None, *order], order, strict=False):
        if before is not None and costs[before] == costs[i]:
            placed[i] = placed[before]  # equals do not dominate each other
            continue
        last = costs[i][-1]
        front = bisect_right(lowest, last)
        lowest[front : front + 1] = [last]
        placed[i] = front + 1
    return placed


def _dominated(cost: tuple[float, ...], members: Sequence[tuple[float, ...]]) -> bool:
    return any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in members)


def first_number(trial: Trial) -> int:
    """The number of the first trial of the same point."""
    return trial.number - trial.repeat


def _values(trial: Trial) -> tuple[float, ...]:
    assert trial.values, "a completed trial has values"
    return trial.values
