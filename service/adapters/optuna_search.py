"""The choice of points and the pruning of trials: one Optuna study in memory.

The store is the truth: a search is built from the trials and measurements that it holds, so that starting, resuming and
extending a sweep are the same thing. Point numbers are ours; Optuna's own are never seen outside.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState as OptunaState

from service.adapters.optuna_samplers import (
    FIRST_GENERATION,
    RETOLD,
    SEEN,
    Storage,
    calm,
    distribution,
    encoded,
    sampler,
    suggest,
)
from service.domain import Measurement, Trial, TrialState
from service.points import Known
from service.pruning import Asha, Hyperband, Median, Nothing, Patient, Pruner
from service.spec import SweepSpec

FIRST_RUNG = 1 / 16
"""Share of a trial's steps after which a pruner first looks at it; sooner it would mostly see chance."""
ENOUGH = 8
"""Completed trials from which importances can be told from chance."""

_STATES = {
    TrialState.COMPLETED: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.STOPPED: OptunaState.FAIL,
    TrialState.FAILED: OptunaState.FAIL,
}


@final
class Search:
    """The points of one sweep, asked for one at a time; each is told exactly once how it ended.

    Args:
        spec: what to search, with which sampler, pruner and seed.
        trials: what the sweep has done so far, a trial a point. Unfinished ones count as asked.
        measurements: theirs.
        known: what other sweeps found in this space.
    """

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[Trial] = (),
        measurements: Sequence[Measurement] = (),
        known: Sequence[Known] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would log a line a trial
        self._spec, self._space, self._budget = spec, spec.space, spec.search.trials
        self._asked = 1 + max((trial.number for trial in trials), default=-1)
        self._sign = 1.0 if spec.objective.mode == "max" else -1.0
        self._pruner = _pruner(spec)
        self._planned = _planned(spec)
        self._storage, self._common = Storage(), IntersectionSearchSpace()
        self._study = optuna.create_study(
            storage=self._storage,
            directions=["maximize" if objective.mode == "max" else "minimize" for objective in spec.objectives],
        )
        self._running: dict[int, optuna.Trial] = {}
        self._last: dict[int, tuple[int, float, bool]] = {}
        """Step, value and verdict of each running trial's newest report."""
        self._study.add_trials([self._frozen(OptunaState.COMPLETE, one.point, one.values) for one in known])
        self._rebuild(trials, measurements)

    @property
    def running(self) -> frozenset[int]:
        """Numbers of the points that were asked for and not told yet."""
        return frozenset(self._running)

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """The next point's number and the point; None once the sweep has as many as its spec allows."""
        if self._asked >= self._budget:
            return None
        number, self._asked = self._asked, self._asked + 1
        planned = self._planned(number)
        if planned is not None:
            self._ask_for(number, planned)
            return number, planned
        self._study.sampler = sampler(self._spec.search, number, self._common)
        with calm(self._spec.search), self._storage.narrowed(self._study, SEEN.get(self._spec.search.sampler)):
            trial = self._running[number] = self._study.ask()
            point: dict[str, Any] = {}
            for name, parameter in self._space.items():  # parents come first
                if self._space.is_active(name, point):
                    point[name] = suggest(trial, name, parameter)
        return number, point

    def extend(self, trials: int) -> None:
        """So many points shall be tried in all."""
        self._budget = trials

    def report(self, number: int, step: int, value: float) -> bool:
        """Takes a running trial's first objective after a step; True: the pruner ends the trial here.

        A value that is not finite is left out: it says nothing of where the trial is going. A step that was reported
        before, by a trial that continues, gets the newest verdict again.
        """
        assert number in self._running, f"point {number} does not run"
        last, _, verdict = self._last.get(number, (0, 0.0, False))
        if math.isfinite(value) and step > last:
            verdict = self._pruner.report(number, step, self._sign * value)
            self._last[number] = step, value, verdict
        return verdict

    def complete(self, number: int, values: Sequence[float]) -> None:
        """The point has these values, one an objective; one that is not finite is a failure."""
        if all(map(math.isfinite, values)):
            self._pruner.complete(number)
            self._end(number, OptunaState.COMPLETE, values)
        else:
            self.fail(number)

    def prune(self, number: int) -> None:
        """The pruner ended the point; its last reported value counts."""
        last = self._last.get(number)
        if last is not None and len(self._spec.objectives) == 1:  # Optuna knows of no steps with several
            self._running[number].report(last[1], last[0])
        self._end(number, OptunaState.PRUNED)

    def fail(self, number: int) -> None:
        """The point has no value: it failed, or was stopped."""
        self._end(number, OptunaState.FAIL)

    def importances(self, objective: int = 0) -> dict[str, float]:
        """The share in the spread of an objective, largest first, of each parameter that is active everywhere.

        Empty where it cannot be told: too few completed points, or too much alike.
        """
        completed = self._study.get_trials(deepcopy=False, states=[OptunaState.COMPLETE])
        if len(completed) < ENOUGH or len({float(trial.values[objective]) for trial in completed}) < 2:
            return {}
        always = [name for name in self._space if all(name in trial.params for trial in completed)]
        if not always:
            return {}
        sign = 1.0 if self._spec.objectives[objective].mode == "max" else -1.0
        with warnings.catch_warnings():  # that it asks what makes the target low, which is what we give it
            warnings.simplefilter("ignore", UserWarning)
            shares = optuna.importance.get_param_importances(
                self._study, params=always, target=lambda trial: -sign * float(trial.values[objective])
            )
        return {name: float(share) for name, share in shares.items()}

    def _end(self, number: int, state: OptunaState, values: Sequence[float] | None = None) -> None:
        self._study.tell(self._running.pop(number), values=values, state=state)
        self._last.pop(number, None)

    def _rebuild(self, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> None:
        histories: dict[str, dict[int, float]] = defaultdict(dict)
        for measurement in measurements:
            value = measurement.metrics.get(self._spec.objective.metric, math.nan)
            if math.isfinite(value):
                histories[measurement.trial_id][measurement.step] = value
        trials = sorted(trials, key=lambda trial: trial.number)
        for trial in trials:
            if trial.state.final:
                for step, value in sorted(histories[trial.id].items()):
                    self._pruner.report(trial.number, step, self._sign * value)
                if trial.state is TrialState.COMPLETED:
                    self._pruner.complete(trial.number)
        if self._spec.search.sampler in RETOLD:
            self._retell(trials)
        else:
            for trial in trials:
                if trial.state.final:
                    history = histories[trial.id]
                    values = trial.values if trial.state is TrialState.COMPLETED else None
                    last = {max(history): history[max(history)]} if history else {}
                    self._study.add_trial(self._frozen(_STATES[trial.state], trial.point, values, last))
                else:
                    self._ask_for(trial.number, trial.point)
        for trial in trials:
            if not trial.state.final:
                for step, value in sorted(histories[trial.id].items()):
                    self.report(trial.number, step, value)  # only the verdict on its last step still matters

    def _retell(self, trials: Sequence[Trial]) -> None:
        """Asks and tells as the sweep did, in its order.

        A trial that by its times ended before it began, since a clock was put back, is told once it is asked for.
        """
        acts = []
        for trial in trials:
            acts.append((trial.created_at, 0, trial))
            if trial.finished_at is not None and trial.state.final:
                acts.append((max(trial.created_at, trial.finished_at), 1, trial))
        for _, ends, trial in sorted(acts, key=lambda act: (*act[:2], act[2].number)):
            if not ends:
                self._ask_for(trial.number, trial.point)
            else:
                state = _STATES[trial.state]
                self._end(trial.number, state, trial.values if state is OptunaState.COMPLETE else None)

    def _frozen(
        self,
        state: OptunaState,
        point: Mapping[str, Any],
        values: Sequence[float] | None,
        last: Mapping[int, float] | None = None,
    ) -> optuna.trial.FrozenTrial:
        one = len(self._spec.objectives) == 1
        pruned = [*last.values()] if state is OptunaState.PRUNED and one and last else None
        return optuna.trial.create_trial(
            state=state,
            values=values if values is not None else pruned,
            params={name: encoded(self._space[name], value) for name, value in point.items()},
            distributions={name: distribution(self._space[name]) for name in point},
            system_attrs=dict(FIRST_GENERATION),
            intermediate_values=dict(last) if state is OptunaState.PRUNED and one and last else None,
        )

    def _ask_for(self, number: int, point: Mapping[str, Any]) -> None:
        """A new trial of Optuna's at a point that is known; a sampler with generations notes in which one it is."""
        chosen = self._spec.search.sampler in RETOLD
        self._study.sampler = sampler(self._spec.search, number, self._common) if chosen else RandomSampler()
        self._study.enqueue_trial({name: encoded(self._space[name], value) for name, value in point.items()})
        trial = self._running[number] = self._study.ask()
        if chosen:
            trial.relative_params  # noqa: B018 - Optuna chooses, and notes the generation, only where it is asked so
        for name in point:
            suggest(trial, name, self._space[name])


def _planned(spec: SweepSpec) -> Callable[[int], dict[str, Any] | None]:
    """The points that follow from their numbers alone; None for those that the sampler chooses."""
    search, first = spec.search, [dict(point) for point in spec.search.enqueue]
    if search.sampler == "grid":
        # Shuffled, so that a grid of which only a part is tried, or has been so far, was tried evenly.
        points = list(spec.space.grid())
        order = np.random.default_rng(search.seed).permutation(len(points))
        return lambda number: points[order[number]]
    if search.sampler == "quasi-random":
        from scipy.stats.qmc import Sobol  # only here: its import would keep every driver from its first trial

        sequence = Sobol(max(1, len(spec.space)), rng=search.seed)

        def quasi_random(number: int) -> dict[str, Any]:
            sequence.reset()
            if number:  # it cannot go by nothing
                sequence.fast_forward(number)
            return spec.space.at(sequence.random()[0][: len(spec.space)].tolist())

        return lambda number: first[number] if number < len(first) else quasi_random(number)
    return lambda number: first[number] if number < len(first) else None


def _pruner(spec: SweepSpec) -> Pruner:
    stop, last = spec.stop, max(spec.trial(point).steps for point in spec.space.corners())
    first = stop.grace_period if stop.grace_period is not None else math.ceil(last * FIRST_RUNG)
    match stop.pruner:
        case "asha":
            return Asha(first=first, reduction=stop.reduction_factor)
        case "hyperband":
            return Hyperband(first=first, last=last, reduction=stop.reduction_factor, seed=spec.search.seed)
        case "median":
            return Median(first=first)
        case "patient":
            return Patient(patience=first)
        case "none":
            return Nothing()
