"""What ends trials that fall behind: ASHA, Hyperband, the median rule, alone or with patience.

A pruner knows trials by number and what each reported, nothing else: told the same reports again, whatever the order of
the trials, it judges alike. Higher is better here; who has it the other way round gives negative numbers.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from bisect import insort
from collections import defaultdict
from typing import final

STARTUP = 5
"""Completed trials from which a median says something."""


class Pruner(ABC):
    """Base of all pruners."""

    @abstractmethod
    def report(self, number: int, step: int, value: float) -> bool:
        """Takes what a trial reached after a step, a finite number; True: the trial should end here.

        Steps of one trial come in order, each once.
        """

    def complete(self, number: int) -> None:  # noqa: B027 - most do not care
        """The trial has run to its end."""


@final
class Nothing(Pruner):
    """Lets every trial run."""

    def report(self, number: int, step: int, value: float) -> bool:  # noqa: ARG002
        """False."""
        return False


@final
class Asha(Pruner):
    """Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning").

    After `first`, `first` * `reduction`, `first` * `reduction`^2, ... steps a trial goes on if it is in the best
    1/`reduction` of all that have come so far, or the best one while there are fewer.
    """

    def __init__(self, *, first: int, reduction: int) -> None:
        self._first, self._reduction = first, reduction
        self._rungs: list[list[float]] = []
        self._reached: dict[int, int] = defaultdict(int)

    def report(self, number: int, step: int, value: float) -> bool:
        """True at a rung whose best do not include the trial."""
        ends = False
        while step >= self._first * self._reduction ** self._reached[number]:
            rung = self._reached[number]
            self._reached[number] += 1
            if rung == len(self._rungs):
                self._rungs.append([])
            values = self._rungs[rung]
            insort(values, value)
            ends = ends or value < values[-max(1, len(values) // self._reduction)]
        return ends


@final
class Hyperband(Pruner):
    """Hyperband (Li et al. 2018, JMLR 18(185)), asynchronous: ASHA several times over, each bracket with a later start.

    A trial's bracket follows from its number and the seed, so that each bracket gets its share (algorithm 1: n trials
    at r steps).
    """

    def __init__(self, *, first: int, last: int, reduction: int, seed: int) -> None:
        count = 1
        while first * reduction**count <= last:
            count += 1
        self._seed = seed
        self._brackets = [Asha(first=first * reduction**bracket, reduction=reduction) for bracket in range(count)]
        # ceil(count * reduction^s / (s + 1)) with s = count - 1, ..., 0
        self._shares = [-(-count * reduction**s // (s + 1)) for s in reversed(range(count))]

    def report(self, number: int, step: int, value: float) -> bool:
        """What the trial's bracket says."""
        return self._brackets[self.bracket(number)].report(number, step, value)

    def bracket(self, number: int) -> int:
        """The trial's bracket, from 0 on; any trial's is as likely as the bracket's share."""
        place = zlib.crc32(f"{self._seed}_{number}".encode()) % sum(self._shares)
        for bracket, share in enumerate(self._shares):
            place -= share
            if place < 0:
                return bracket
        raise AssertionError("the shares add up")


@final
class Median(Pruner):
    """The median rule: ends a trial whose best so far is below the median of the completed ones' reports at that step.

    Golovin et al. 2017, "Google Vizier", section 3.2.2, with reports in place of their running averages.
    It does not look before `first` steps, nor before `STARTUP` trials have completed.
    """

    def __init__(self, *, first: int) -> None:
        self._first = first
        self._best: dict[int, float] = {}
        self._reports: dict[int, dict[int, float]] = defaultdict(dict)
        self._completed: dict[int, list[float]] = defaultdict(list)
        self._count = 0

    def report(self, number: int, step: int, value: float) -> bool:
        """True below the median."""
        best = self._best[number] = max(value, self._best.get(number, value))
        self._reports[number][step] = value
        others = self._completed[step]
        enough = self._count >= STARTUP and step >= self._first and bool(others)
        return enough and best < (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2

    def complete(self, number: int) -> None:
        """Its reports count from now on."""
        self._count += 1
        for step, value in self._reports.pop(number, {}).items():
            insort(self._completed[step], value)


@final
class Patient(Pruner):
    """The median rule for trials that no longer get better: their best of the last `patience` + 1 reports is worse than
    what they had reached before.
    """

    def __init__(self, *, patience: int) -> None:
        self._patience, self._median = patience, Median(first=1)
        self._reports: dict[int, list[float]] = defaultdict(list)

    def report(self, number: int, step: int, value: float) -> bool:
        """True below the median, for a trial that got worse."""
        below = self._median.report(number, step, value)
        reports = self._reports[number]
        reports.append(value)
        before, after = reports[: -self._patience - 1], reports[-self._patience - 1 :]
        return below and bool(before) and max(after) < max(before)

    def complete(self, number: int) -> None:
        """As the median rule has it."""
        self._median.complete(number)
        self._reports.pop(number, None)
