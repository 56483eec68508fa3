"""Who copies whom, and with which settings it goes on: beside Ray Tune's own scheduler."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pbt import _explore

from search_spaces import Choice, Float, Int, SearchSpace
from service.plan import PopulationTraining
from service.population import Member, copies, explored

RATE = "train.learning_rate"
SPACE = SearchSpace({RATE: Float(low=1e-4, high=1e-1, log=True)})


def make_members(values: list[float]) -> list[Member]:
    """A trial for each value, in order of number; its learning rate tells its number."""
    return [Member(number, value, {RATE: 1e-3 * (number + 1)}) for number, value in enumerate(values)]


def make_copies(values: list[float], *, step: int = 4, seed: int = 0, **training: Any) -> list[Any]:
    """What a look at trials with these values comes to."""
    plan = PopulationTraining(interval=4, **training)
    return copies(make_members(values), training=plan, space=SPACE, seed=seed, step=step)


def tunes_quantiles(values: list[float], quantile: float) -> tuple[list[int], list[int]]:
    """The worst and the best trials, by number, as Tune's scheduler tells them apart."""
    scheduler = PopulationBasedTraining(
        metric="value",
        mode="max",
        perturbation_interval=4,
        hyperparam_mutations={RATE: tune.uniform(0, 1)},
        quantile_fraction=quantile,
        synch=True,
    )
    for number, value in enumerate(values):
        scheduler._trial_state[TuneTrial(number)] = SimpleNamespace(last_score=value)
    worst, best = scheduler._quantiles()
    return [trial.number for trial in worst], [trial.number for trial in best]


@dataclass(frozen=True)
class TuneTrial:
    """What Tune asks of a trial."""

    number: int

    def is_finished(self) -> bool:
        """It trains."""
        return False


@pytest.mark.parametrize("quantile", [0.1, 0.25, 0.3, 0.5])
def test_the_worst_copy_the_best_as_tune_has_it(quantile: float) -> None:
    """Populations of every size, with equals among them: the same trials copy, and only from the same ones."""
    rng = random.Random(1)
    for size in range(13):
        for seed in range(8):
            values = [round(rng.random(), 1) for _ in range(size)]
            worst, best = tunes_quantiles(values, quantile)
            made = make_copies(values, quantile=quantile, seed=seed)
            assert [copy.number for copy in made] == worst
            assert {copy.source for copy in made} <= set(best)


def test_every_best_trial_is_copied_at_some_time() -> None:
    """Which one is drawn depends on the seed, the step and the trial, and on nothing else."""
    values = [0.1, 0.2, 0.8, 0.9]
    drawn = {copy.source for step in range(4, 84, 4) for copy in make_copies(values, step=step, quantile=0.5)}
    assert drawn == {2, 3}
    assert make_copies(values, step=8) == make_copies(values, step=8)
    assert len({str(make_copies(values, step=8, seed=seed)) for seed in range(20)}) > 5


def test_a_trial_without_a_number_neither_copies_nor_is_copied() -> None:
    """As in Tune: it goes on as it is."""
    nan = float("nan")
    assert make_copies([nan, 0.5]) == []
    (copy,) = make_copies([nan, 0.9, 0.5, nan])
    assert (copy.number, copy.source) == (2, 1)


@pytest.mark.parametrize(
    ("parameter", "value", "tunes"),
    [
        (Float(low=1e-9, high=1e9, log=True), 0.01, None),
        (Float(low=-1e9, high=1e9), 0.01, None),
        (Int(low=1, high=10**9), 20, None),
        (Int(low=1, high=10**9), 2, None),
        (Choice(values=(1, "two", 3.0, [4])), "two", [1, "two", 3.0, [4]]),
        (Choice(values=(1, "two", 3.0, [4])), [4], [1, "two", 3.0, [4]]),
    ],
)
@pytest.mark.parametrize("resample", [0.0, 0.25, 1.0])
def test_settings_move_as_tune_moves_them(
    parameter: Any, value: Any, tunes: Any, resample: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same random numbers and a range that nothing leaves, each value is the very one of Tune."""
    plan = PopulationTraining(interval=1, resample=resample, factors=[0.8, 1.2])
    for seed in range(40):
        rng = random.Random(seed)
        monkeypatch.setattr("ray.tune.schedulers.pbt.random", rng)
        mutations = {RATE: tunes or (lambda rng=rng: parameter.sample(rng))}
        theirs, _ = _explore({RATE: value}, mutations, resample, (0.8, 1.2), None)
        ours = explored(parameter, value, plan, random.Random(seed))
        assert ours == theirs[RATE]
        assert type(ours) is type(theirs[RATE])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Float(low=0.1, high=0.9), 0.85),
        (Float(low=0.1, high=0.9, step=0.1), 0.8),
        (Int(low=2, high=8, step=3), 8),
        (Int(low=1, high=4), 1),
        (Choice(values=(1, 2)), 2),
    ],
)
def test_no_setting_leaves_its_range_or_its_steps(parameter: Any, value: Any) -> None:
    """However often it moves: unlike Tune's, which multiplies without end, ours are points of the space."""
    plan = PopulationTraining(interval=1, resample=0.1, factors=[0.5, 2.0])
    rng = random.Random(0)
    seen = set()
    for _ in range(200):
        value = explored(parameter, value, plan, rng)
        assert parameter.allows(value)
        seen.add(value)
    assert len(seen) > 1
