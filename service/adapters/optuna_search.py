"""The choice of points and the pruning of trials: one Optuna study in memory. The only file that imports Optuna.

The store is the truth: a search is built from the trials and measurements that it holds, so that starting, resuming and
extending a sweep are the same thing. Trial numbers are ours; Optuna's own are never seen outside.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState

from search_spaces import Choice, Float, Int, same
from service.domain import Measurement, Trial, TrialState
from service.spec import SweepSpec

FIRST_RUNG = 1 / 16
"""Share of a trial's steps after which ASHA first looks at it; sooner it would mostly see chance."""
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
        trials: what the sweep has done so far. Unfinished ones count as asked.
        measurements: theirs.
    """

    def __init__(self, spec: SweepSpec, trials: Sequence[Trial] = (), measurements: Sequence[Measurement] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would log a line a trial
        self._space, self._budget = spec.space, spec.search.trials
        self._objective = spec.objective
        self._asked = 1 + max((trial.number for trial in trials), default=-1)
        self._first_rung, self._reduction = _first_rung(spec), spec.stop.reduction_factor
        self._pruner = _pruner(spec, self._first_rung)
        self._study = optuna.create_study(
            direction="maximize" if self._objective.mode == "max" else "minimize",
            sampler=_sampler(spec, self._asked),
            pruner=self._pruner,
        )
        self._running: dict[int, optuna.Trial] = {}
        self._verdicts: dict[int, tuple[int, bool]] = {}
        self._rebuild(trials, measurements)

    @property
    def running(self) -> frozenset[int]:
        """Numbers of the trials that were asked for and not told yet."""
        return frozenset(self._running)

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """The next trial's number and point; None once the sweep has as many trials as its spec allows."""
        if self._asked >= self._budget:
            return None
        number, self._asked = self._asked, self._asked + 1
        trial = self._running[number] = self._study.ask()
        point: dict[str, Any] = {}
        for name, parameter in self._space.items():  # parents come first
            if self._space.is_active(name, point):
                point[name] = _suggest(trial, name, parameter)
        return number, point

    def report(self, number: int, step: int, value: float) -> bool:
        """Takes a running trial's objective after an epoch; True: the pruner ends the trial here.

        A value that is not finite is left out: it says nothing of where the trial is going. A step that was reported
        before, by a trial that continues, gets the newest verdict again.
        """
        trial = self._running[number]
        last, verdict = self._verdicts.get(number, (0, False))
        if math.isfinite(value) and step > last:
            trial.report(value, step)
            verdict = trial.should_prune()
            self._verdicts[number] = step, verdict
        return verdict

    def complete(self, number: int, value: float) -> None:
        """The trial ended by itself with this value; a value that is not finite is a failure."""
        if math.isfinite(value):
            self._study.tell(self._running.pop(number), value)
        else:
            self.fail(number)

    def prune(self, number: int) -> None:
        """The pruner ended the trial; its last reported value counts."""
        self._study.tell(self._running.pop(number), state=OptunaState.PRUNED)

    def fail(self, number: int) -> None:
        """The trial has no value: it failed, or was stopped."""
        self._study.tell(self._running.pop(number), state=OptunaState.FAIL)

    def importances(self) -> dict[str, float]:
        """The share in the spread of the objective, largest first, of each parameter that is active in every trial.

        Empty where it cannot be told: too few completed trials, or too much alike.
        """
        completed = self._study.get_trials(deepcopy=False, states=[OptunaState.COMPLETE])
        if len(completed) < ENOUGH or len({trial.value for trial in completed}) < 2:
            return {}
        always = [name for name in self._space if all(name in trial.params for trial in completed)]
        shares = optuna.importance.get_param_importances(self._study, params=always) if always else {}
        return {name: float(share) for name, share in shares.items()}

    def _rebuild(self, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> None:
        histories: dict[str, dict[int, float]] = defaultdict(dict)
        for measurement in measurements:
            value = measurement.metrics.get(self._objective.metric, math.nan)
            if math.isfinite(value):
                histories[measurement.trial_id][measurement.step] = value
        self._study.add_trials([self._finished(trial, histories[trial.id]) for trial in trials if trial.state.final])
        for trial in trials:
            if not trial.state.final:
                self._ask_again(trial, histories[trial.id])

    def _finished(self, trial: Trial, history: Mapping[int, float]) -> optuna.trial.FrozenTrial:
        state = _STATES[trial.state]
        value = None
        if state is OptunaState.COMPLETE:
            assert trial.values is not None, "a completed trial has its values"
            value = trial.values[0]
        elif state is OptunaState.PRUNED and history:
            value = history[max(history)]
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params={name: _encoded(self._space[name], value) for name, value in trial.point.items()},
            distributions={name: _distribution(self._space[name]) for name in trial.point},
            intermediate_values=dict(history),
            system_attrs=self._rungs(history),
        )

    def _rungs(self, history: Mapping[int, float]) -> dict[str, Any]:
        """What SuccessiveHalvingPruner notes on a trial that reported this: its value at each rung that it reached."""
        rungs: dict[str, Any] = {}
        if isinstance(self._pruner, optuna.pruners.SuccessiveHalvingPruner):
            for step in sorted(history):
                while step >= self._first_rung * self._reduction ** len(rungs):
                    rungs[f"completed_rung_{len(rungs)}"] = history[step]
        return rungs

    def _ask_again(self, trial: Trial, history: Mapping[int, float]) -> None:
        self._study.enqueue_trial({name: _encoded(self._space[name], value) for name, value in trial.point.items()})
        again = self._running[trial.number] = self._study.ask()
        for name in trial.point:
            _suggest(again, name, self._space[name])
        for step in sorted(history):
            self.report(trial.number, step, history[step])  # only the verdict on its last step still matters


def _sampler(spec: SweepSpec, known: int) -> optuna.samplers.BaseSampler:
    # A search that goes on must not draw again the numbers that its beginning drew.
    seed = int(np.random.SeedSequence((spec.search.seed, known)).generate_state(1)[0])
    if spec.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _first_rung(spec: SweepSpec) -> int:
    """Steps after which ASHA first looks at a trial."""
    if spec.stop.grace_period is not None:
        return spec.stop.grace_period
    steps = max(spec.trial(point).steps for point in spec.space.corners())
    return math.ceil(steps * FIRST_RUNG)


def _pruner(spec: SweepSpec, first_rung: int) -> optuna.pruners.BasePruner:
    if spec.stop.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=first_rung, reduction_factor=spec.stop.reduction_factor
        )
    return optuna.pruners.NopPruner()


def _distribution(parameter: Float | Int | Choice) -> BaseDistribution:
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return CategoricalDistribution([json.dumps(value) for value in parameter.values])


def _suggest(trial: optuna.Trial, name: str, parameter: Float | Int | Choice) -> Any:
    if isinstance(parameter, Float):
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, Int):
        return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in parameter.values]))


def _encoded(parameter: Float | Int | Choice, value: Any) -> Any:
    """The value as Optuna knows it. Choices are JSON texts there: lists are legal so, and true is not 1."""
    if isinstance(parameter, Choice):
        return next(json.dumps(own) for own in parameter.values if same(own, value))
    return value
