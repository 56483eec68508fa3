"""The points of a sweep by merit, a page at a time, and what they say together."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import replace
from typing import final

from service.domain import Sweep, Trial, TrialState
from service.points import Mode, Result, ranked
from service.ports import Store

REMEMBERED = 4
"""Sweeps whose ranking is kept in memory."""
FEW = 100
"""Trials that are read by their numbers; more are read with all the others."""
AT_ONCE = 1000
"""Numbers in a question: databases take only so many."""

Place = tuple[int, float, int]
"""Where a point is: its front, its first value, its number."""


@final
class Leaderboards:
    """The leaderboards of the sweeps in a store; threads may share them.

    With one objective and no repeats the database knows the order and reads a page alone. Else every completed trial
    counts for the order. That is kept: what a trial has completed with stays as it is, so that only those that have
    since are read, and the points placed anew. Only its checkpoint may still go, so a page's own trials are read again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._ranked: OrderedDict[str, tuple[int, list[Result]]] = OrderedDict()

    def version(self, sweep_id: str) -> int:
        """What the values and the order of a sweep's points depend on: how many trials have completed."""
        return self._store.count_trials(sweep_id).get(TrialState.COMPLETED, 0)

    def page(self, sweep_id: str, *, limit: int | None = None, after: Place | None = None) -> list[Result]:
        """The points after that place, best first: by front, then by the first value; equals by number."""
        sweep = self._store.sweep(sweep_id)
        modes = _modes(sweep)
        if len(modes) == sweep.spec["search"].get("repeats", 1) == 1:
            place = after[1:] if after is not None else None
            found = self._store.best_trials(sweep_id, mode=modes[0], limit=limit, after=place)
            page = ranked(found, modes=modes, aggregate="mean")
            if not page or after is None:
                return page
            earlier = after[0] - (page[0].values[0] == after[1])  # the page's own fronts begin at 1
            return [replace(one, front=one.front + earlier) for one in page]
        found_all = self.whole(sweep_id)
        sign = -1.0 if modes[0] == "max" else 1.0

        def order(place: Place) -> Place:
            return place[0], sign * place[1], place[2]

        start = bisect_right(found_all, order(after), key=lambda one: order(place_of(one))) if after is not None else 0
        shown = found_all[start : None if limit is None else start + limit]
        now = {trial.number: trial for trial in self._trials(sweep_id, [t.number for one in shown for t in one.trials])}
        return [replace(one, trials=tuple(now[trial.number] for trial in one.trials)) for one in shown]

    def whole(self, sweep_id: str) -> list[Result]:
        """All points, best first, with their trials as they were when they were placed."""
        completed = self.version(sweep_id)
        with self._lock:
            known = self._ranked.get(sweep_id)
        if known is not None and known[0] == completed:
            return known[1]
        sweep, before = self._store.sweep(sweep_id), known[1] if known is not None else []
        have = {trial.number for one in before for trial in one.trials}
        new = [number for number in self._store.completed(sweep_id) if number not in have]
        if len(new) > FEW:
            before, trials = [], self._store.trials(sweep_id, states=[TrialState.COMPLETED])
        else:
            trials = self._trials(sweep_id, new)
        aggregate = sweep.spec["search"].get("aggregate", "mean")
        found = ranked(trials, modes=_modes(sweep), aggregate=aggregate, known=before)
        with self._lock:
            self._ranked[sweep_id] = sum(len(one.trials) for one in found), found
            self._ranked.move_to_end(sweep_id)
            while len(self._ranked) > REMEMBERED:
                self._ranked.popitem(last=False)
        return found

    def _trials(self, sweep_id: str, numbers: list[int]) -> list[Trial]:
        parts = [numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)]
        return [trial for part in parts for trial in self._store.trials(sweep_id, numbers=part)]


def place_of(result: Result) -> Place:
    """Where a point is on its leaderboard."""
    return result.front, result.values[0], result.number


def _modes(sweep: Sweep) -> list[Mode]:
    return [objective["mode"] for objective in sweep.spec["objectives"]]
