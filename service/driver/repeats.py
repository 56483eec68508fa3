"""The trials that a sweep's points come to: one a point, or with `search.repeats` several, each with its own seed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, final

from service.adapters.optuna_search import Search
from service.domain import Measurement, Trial, TrialState
from service.points import Known, result
from service.spec import SweepSpec


class Asked(NamedTuple):
    """A trial to begin."""

    number: int
    repeat: int
    point: dict[str, Any]


@final
class Repeats:
    """Turns the points of a search into trials, and tells the search of each point once, when all its trials ended.

    Point p of R repeats has the trials p R, ..., p R + R - 1. It counts with the mean or the best of those that
    completed, and has failed if none did. The pruner judges a point by its first trial, against the first trials of the
    others, which have the same seed; the other trials begin when the first has ended, and never if it was pruned: a bad
    point costs a part of one trial. Without a pruner, all trials of a point begin as soon as there is room.

    Args:
        spec: what to search.
        trials: what the sweep has done so far.
        measurements: theirs.
        known: what other sweeps found in this space.
    """

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[Trial],
        measurements: Sequence[Measurement],
        known: Sequence[Known] = (),
    ) -> None:
        self._spec, self._count = spec, spec.search.repeats
        self._search = Search(spec, as_points(spec, trials), measurements, known)
        self._ended: dict[int, dict[int, Trial]] = defaultdict(dict)
        self._due: deque[Asked] = deque()
        begun: dict[int, dict[int, Trial]] = defaultdict(dict)
        for trial in trials:
            begun[trial.number // self._count][trial.repeat] = trial
            if trial.state.final:
                self._ended[trial.number // self._count][trial.repeat] = trial
        for number in sorted(self._search.running):
            if begun[number][0].state.final or not self._one_by_one:
                self._begin(number, begun[number][0].point, set(range(self._count)) - begun[number].keys())

    def extend(self, spec: SweepSpec) -> None:
        """Goes on with a spec that differs in having more trials."""
        self._spec = spec
        self._search.extend(spec.search.trials)

    def next(self) -> Asked | None:
        """A trial to begin now; None: there is none before another one ends, if then."""
        if not self._due:
            asked = self._search.ask()
            if asked is None:
                return None
            number, point = asked
            self._begin(number, point, {0} if self._one_by_one else set(range(self._count)))
        return self._due.popleft()

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Takes a running trial's objective after a step; True: the pruner ends the trial here."""
        return trial.repeat == 0 and self._search.report(trial.number // self._count, step, value)

    def end(self, trial: Trial) -> None:
        """Takes a trial's end."""
        number = trial.number // self._count
        self._ended[number][trial.repeat] = trial
        if number not in self._search.running:  # the first trial of a point that was tried again has been pruned
            return
        point = _as_point(self._spec, list(self._ended[number].values()))
        match point.state:
            case TrialState.RUNNING:
                if trial.repeat == 0 and self._one_by_one:
                    self._begin(number, trial.point, set(range(1, self._count)) - self._ended[number].keys())
            case TrialState.COMPLETED:
                assert point.values is not None
                self._search.complete(number, point.values)
            case TrialState.PRUNED:
                self._search.prune(number)
            case _:
                self._search.fail(number)

    @property
    def _one_by_one(self) -> bool:
        """The first trial of a point goes before the others."""
        return self._spec.stop.pruner != "none"

    def _begin(self, number: int, point: Any, repeats: set[int]) -> None:
        self._due.extend(Asked(number * self._count + repeat, repeat, dict(point)) for repeat in sorted(repeats))


def as_points(spec: SweepSpec, trials: Sequence[Trial]) -> list[Trial]:
    """The trials as the search knows them: one for each point, with the point's number, state and values."""
    groups: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.number // spec.search.repeats].append(trial)
    return [_as_point(spec, group) for group in groups.values()]


def _as_point(spec: SweepSpec, trials: Sequence[Trial]) -> Trial:
    first = min(trials, key=lambda trial: trial.repeat)
    number = first.number // spec.search.repeats
    if first.state is TrialState.PRUNED:
        return replace(first, number=number)
    if len([trial for trial in trials if trial.state.final]) < spec.search.repeats:
        return replace(first, number=number, state=TrialState.RUNNING)
    modes = [objective.mode for objective in spec.objectives]
    whole = result(trials, modes=modes, aggregate=spec.search.aggregate)
    state = TrialState.COMPLETED if whole is not None else TrialState.FAILED
    ended = max((trial.finished_at for trial in trials if trial.finished_at is not None), default=None)
    return replace(first, number=number, state=state, values=whole.values if whole else None, finished_at=ended)
