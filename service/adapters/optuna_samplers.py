"""Optuna's samplers as we use them, and our parameters as its distributions."""

from __future__ import annotations

import copy
import heapq
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from threadpoolctl import threadpool_limits

from search_spaces import Choice, Float, Int, same
from service.plan import Search

Parameter = Float | Int | Choice

RETOLD = ("cma-es", "nsga-ii")
"""Samplers with generations: what they make of a history depends on the order in which points were asked and told."""
FIRST_GENERATION: Mapping[str, Any] = {NSGAIISampler._get_generation_key(): 0}
"""What makes a point that is known, and was never asked for, one of those that `nsga-ii` crosses."""
SEEN: Mapping[str, int] = {"tpe": 1000, "gp": 50}
"""Points that a sampler looks at, the newest ones; what it takes to choose grows with them, for gp with their cube."""
CLIMBS, LONG = 5, 1000
"""From so many places `gp` climbs its acquisition function beyond so many points; before, from Optuna's 10."""
BEST = 25
"""Points that it looks at besides, however old: the best of each objective. TPE never takes more for good ones."""


def sampler(search: Search, number: int, common: IntersectionSearchSpace) -> BaseSampler:
    """What chooses point `number`. Its random numbers follow from the seed and that place, so nothing is to be kept.

    Args:
        search: which sampler, and its seed.
        number: the point's.
        common: remembers which parameters all trials have; one for all points of a search.
    """
    seed = int(np.random.SeedSequence((search.seed, number)).generate_state(1)[0])
    match search.sampler:
        case "tpe":
            return TPESampler(seed=seed)
        case "gp":
            chosen = GPSampler(seed=seed)
            if number > LONG:
                chosen._n_local_search = CLIMBS  # Optuna has no argument for it
            return chosen
        case "cma-es" | "nsga-ii":
            evolving: CmaEsSampler | NSGAIISampler = CmaEsSampler(seed=seed)
            if search.sampler == "nsga-ii":
                evolving = NSGAIISampler(seed=seed, population_size=search.population)
            evolving._search_space = common  # one of its own would look through all trials for each point
            return evolving
        case _:  # the others' points are known beforehand
            return RandomSampler(seed=seed)


def calm(search: Search) -> AbstractContextManager[object]:
    """What a sampler is to choose in: on one thread, where its matrices are so small that more wait for each other.

    PyTorch's threads and those of NumPy's and SciPy's OpenBLAS would, and take the cores from the trials meanwhile.
    """
    return threadpool_limits(1) if search.sampler == "gp" else nullcontext()


@final
class Storage(optuna.storages.InMemoryStorage):
    """Optuna's memory, which shows only some trials while a sampler chooses."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[int] | None = None
        self._next = 0

    @contextmanager
    def narrowed(self, study: optuna.Study, seen: int | None) -> Iterator[None]:
        """Within, `study` has no more than the newest `seen` trials, the best ones and those that begin meanwhile."""
        trials = study.get_trials(deepcopy=False)
        if seen is not None and len(trials) > seen:
            self._next = len(trials)
            self._shown = sorted({trial.number for trial in [*trials[-seen:], *_best(study, trials)]})
        try:
            yield
        finally:
            self._shown = None

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """As `BaseStorage` says, less what is not to be seen now."""
        if self._shown is None:
            return super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        trials = super().get_all_trials(study_id, deepcopy=False)  # in the order of their numbers
        chosen = [*(trials[number] for number in self._shown), *trials[self._next :]]
        wanted = [trial for trial in chosen if states is None or trial.state in states]
        return copy.deepcopy(wanted) if deepcopy else wanted


def _best(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Iterator[FrozenTrial]:
    completed = [trial for trial in trials if trial.state is OptunaState.COMPLETE]
    for i, direction in enumerate(study.directions):
        choose = heapq.nlargest if direction is optuna.study.StudyDirection.MAXIMIZE else heapq.nsmallest
        yield from choose(BEST, completed, key=lambda trial, i=i: trial.values[i])  # type: ignore[misc]


def distribution(parameter: Parameter) -> BaseDistribution:
    """The parameter as Optuna knows it."""
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return CategoricalDistribution([json.dumps(value) for value in parameter.values])


def suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Any:
    """The parameter's value in the trial."""
    if isinstance(parameter, Float):
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, Int):
        return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in parameter.values]))


def encoded(parameter: Parameter, value: Any) -> Any:
    """The value as Optuna knows it. Choices are JSON texts there: lists are legal so, and true is not 1."""
    if isinstance(parameter, Choice):
        return next(json.dumps(own) for own in parameter.values if same(own, value))
    return value
