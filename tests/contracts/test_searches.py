"""Every sampler and every pruner: legal points, the same ones for the same seed, and after a crash as without it."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import torch

from search_spaces import SpaceError
from service.adapters.optuna_samplers import RETOLD
from service.adapters.optuna_search import Search
from service.domain import Measurement, Trial, TrialState
from service.errors import InvalidSpec
from service.plan import Search as Plan
from service.plan import Stop
from service.points import Known
from service.spec import SweepSpec
from service.warm_start import LEARNING

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLERS = typing.get_args(typing.get_type_hints(Plan)["sampler"])
PRUNERS = typing.get_args(typing.get_type_hints(Stop)["pruner"])
NUMBERS = {
    "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "train.momentum": {"kind": "float", "low": 0.5, "high": 0.9, "step": 0.1},
    "train.batch_size": {"kind": "int", "low": 16, "high": 256, "log": True},
}
CONDITIONAL = {
    "model.channels": {"kind": "choice", "values": [[8, 16, 16, 16], [16, 32, 32, 32]]},
    "train.optimizer": {"kind": "choice", "values": ["adam", "sgd"]},
    "train.momentum": {**NUMBERS["train.momentum"], "when": {"train.optimizer": "sgd"}},
    "train.batch_size": {"kind": "int", "low": 16, "high": 64, "step": 16},
}
FREE = {**CONDITIONAL, "train.learning_rate": NUMBERS["train.learning_rate"]}
SPACES: dict[str, Any] = {
    "cma-es": NUMBERS,
    "gp": {**NUMBERS, "model.channels": CONDITIONAL["model.channels"]},
    "grid": CONDITIONAL,
}
"""The widest space that a sampler takes, for those that do not take every one."""
SEVERAL = [{"metric": "validation/accuracy", "mode": "max"}, {"metric": "model/parameters", "mode": "min"}]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices as small as those of a Gaussian process here only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_spec(sampler: str = "random", pruner: str = "none", *, several: bool = False, **search: Any) -> SweepSpec:
    """A spec for this sampler; the pruner looks after 1, 4 and 16 of 16 steps."""
    return SweepSpec.from_dict(
        {
            "name": "test",
            "family": "narrow_resnet",
            "data": {"name": "digits"},
            "fixed": {"train.max_epochs": 16},
            "space": SPACES.get(sampler, FREE),
            "search": {"sampler": sampler, "trials": 40, "population": 8, **search},
            "stop": {"pruner": pruner},
            "objectives": SEVERAL if several else SEVERAL[:1],
        }
    )


def length(sampler: str) -> int:
    """Enough trials for the sampler to choose some; a Gaussian process takes seconds for each that is not at random."""
    return {"gp": 14, "grid": 24}.get(sampler, 30)


def score(point: dict[str, Any]) -> float:
    """An accuracy that a sampler can learn something from."""
    rate = point.get("train.learning_rate", 0.01)
    return round(1 - abs(math.log10(rate) + 2) / 4 - abs(point["train.batch_size"] - 48) / 1000, 6)


class Sweep:
    """A sweep of one search, three points at a time, with the books that a store would keep."""

    def __init__(self, spec: SweepSpec, known: Sequence[Known] = ()) -> None:
        self.spec, self.known, self.search = spec, known, Search(spec, known=known)
        self.now, self.jump = NOW, timedelta()
        self.trials: dict[int, Trial] = {}
        self.measured: list[Measurement] = []
        self.lengths: dict[int, int] = {}

    def rebuild(self) -> None:
        """What a new driver does with the books; its clock has jumped."""
        self.now += self.jump
        self.search = Search(self.spec, list(self.trials.values()), self.measured, self.known)

    def at(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def ask(self) -> bool:
        asked = self.search.ask()
        if asked is None:
            return False
        number, point = asked
        trial = Trial(id=f"s-{number}", sweep_id="s", number=number, point=point, created_at=self.at())
        self.trials[number] = trial
        return True

    def advance(self) -> None:
        """One step of each running trial; the first one fails, each seventh one is diverging."""
        for trial in [trial for trial in self.trials.values() if not trial.state.final]:
            step = self.lengths[trial.number] = self.lengths.get(trial.number, 0) + 1
            value = score(dict(trial.point)) * (1 - math.exp(-step)) - (step * 0.02 if trial.number % 7 == 3 else 0)
            metrics = {"validation/accuracy": value}
            self.measured.append(Measurement(trial_id=trial.id, step=step, at=self.at(), metrics=metrics))
            if self.search.report(trial.number, step, value):
                self.search.prune(trial.number)
                self.end(trial, TrialState.PRUNED)
            elif trial.number == 0:
                self.search.fail(trial.number)
                self.end(trial, TrialState.FAILED)
            elif step == 16:
                values = (value, float(trial.point["train.batch_size"]))[: len(self.spec.objectives)]
                self.search.complete(trial.number, values)
                self.end(trial, TrialState.COMPLETED, values)

    def end(self, trial: Trial, state: TrialState, values: tuple[float, ...] | None = None) -> None:
        self.trials[trial.number] = replace(trial, state=state, values=values, finished_at=self.at())

    def run(self, *, deaths: bool = False) -> Sweep:
        """To its end; with deaths, each next ask is another driver's."""
        more = True
        while more or any(not trial.state.final for trial in self.trials.values()):
            while more and len(self.search.running) < 3:
                if deaths and len(self.trials) % 3 == 1:
                    self.rebuild()
                more = self.ask()
            self.advance()
        return self

    def books(self) -> Any:
        return [(trial.point, trial.state, trial.values) for _, trial in sorted(self.trials.items())], self.lengths


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_are_legal_and_follow_from_the_seed(sampler: str) -> None:
    """All of them belong to the space, conditions included; the seed decides them, and another gives others."""
    spec = make_spec(sampler, trials=length(sampler))
    sweep = Sweep(spec).run()
    assert len(sweep.trials) == spec.search.trials
    for trial in sweep.trials.values():
        spec.space.check(trial.point)
        spec.trial(trial.point)
    assert Sweep(spec).run().books() == sweep.books()
    other = Sweep(SweepSpec.from_dict({**spec.to_dict(), "search": {**spec.search.to_dict(), "seed": 1}})).run()
    assert other.books() != sweep.books()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_rebuilt_search_asks_for_the_same_points(sampler: str, several: bool) -> None:
    """Drivers that die between any two points leave the sweep as it would have been."""
    if several and sampler in ("cma-es", "gp"):
        with pytest.raises(InvalidSpec, match=f"{sampler} needs one objective, got 2"):
            make_spec(sampler, several=True)
        return
    pruner = "none" if sampler in (*RETOLD, "gp") else "asha"  # generations are of points that complete
    spec = make_spec(sampler, pruner, several=several, trials=length(sampler))
    assert Sweep(spec).run(deaths=True).books() == Sweep(spec).run().books()


@pytest.mark.parametrize("sampler", LEARNING)
def test_a_warm_start_changes_the_points_and_survives_drivers(sampler: str) -> None:
    """What other sweeps found decides the points from the first one on, whoever of the drivers chooses them."""
    spec = make_spec(sampler, trials=2 if sampler == "gp" else 12)
    rng = Random(0)
    points = [spec.space.sample(rng) for _ in range(12)]
    known = [Known(point, (score(point),)) for point in points]
    warm = Sweep(spec, known).run()
    assert warm.trials[0].point not in points
    assert warm.trials[0].point != Sweep(spec).run().trials[0].point
    assert Sweep(spec, known).run(deaths=True).books() == warm.books()
    other = [Known(point, (-score(point),)) for point in points]
    assert Sweep(spec, other).run().trials[0].point != warm.trials[0].point


@pytest.mark.parametrize("sampler", RETOLD)
def test_a_clock_that_is_put_back_between_drivers_ends_no_search(sampler: str) -> None:
    """By their times trials then end before they begin; every point is tried all the same, and told how it ended."""
    spec = make_spec(sampler, "asha", trials=length(sampler))
    sweep = Sweep(spec)
    sweep.jump = timedelta(hours=-5)
    sweep.run(deaths=True)
    assert len(sweep.trials) == spec.search.trials
    assert any(trial.finished_at < trial.created_at for trial in sweep.trials.values() if trial.finished_at)
    sweep.rebuild()
    assert not sweep.search.running


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_rebuilt_pruner_judges_alike(pruner: str) -> None:
    """The same trials end at the same steps, drivers' deaths or not; all but `none` end some, and not the best."""
    spec = make_spec("random", pruner)
    sweep = Sweep(spec).run()
    assert Sweep(spec).run(deaths=True).books() == sweep.books()
    pruned = [trial for trial in sweep.trials.values() if trial.state is TrialState.PRUNED]
    assert bool(pruned) == (pruner != "none")
    healthy = [trial for trial in sweep.trials.values() if trial.number % 7 != 3 and trial.number > 0]
    assert max(healthy, key=lambda trial: score(dict(trial.point))).state is TrialState.COMPLETED


@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler in ("tpe", "cma-es", "nsga-ii")])
def test_a_sampler_learns(sampler: str) -> None:
    """The points of its second half are better than those of its first, by median."""
    sweep = Sweep(make_spec(sampler, trials=60)).run()
    scores = [score(dict(trial.point)) for _, trial in sorted(sweep.trials.items())]
    assert sorted(scores[30:])[15] > sorted(scores[:30])[15]


@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler != "grid"])
def test_points_to_try_first_come_first(sampler: str) -> None:
    """They count as trials; the sampler goes on after them, also in a rebuilt search."""
    space = make_spec(sampler).space
    first = space.corners()[:2]
    spec = make_spec(sampler, trials=6, enqueue=first)
    sweep = Sweep(spec).run()
    points = [trial.point for _, trial in sorted(sweep.trials.items())]
    assert points[:2] == first
    assert len(points) == 6
    assert Sweep(spec).run(deaths=True).books() == sweep.books()


def test_every_quasi_random_half_is_visited_evenly() -> None:
    """Sobol points: of 2^k ones, each half of each range has exactly half."""
    spec = make_spec("quasi-random", trials=32)
    sweep = Sweep(spec).run()
    rates = [math.log10(trial.point["train.learning_rate"]) for trial in sweep.trials.values()]
    assert sum(rate < -2.5 for rate in rates) == 16
    optimizers = [trial.point["train.optimizer"] for trial in sweep.trials.values()]
    assert optimizers.count("sgd") == 16


def test_a_point_at_the_edge_of_the_unit_cube_is_legal() -> None:
    """Both ends of every coordinate, whatever the rounding."""
    space = make_spec("quasi-random").space
    for share in (0.0, math.nextafter(1, 0)):
        point = space.at([share] * len(space))
        try:
            space.check(point)
        except SpaceError as error:
            pytest.fail(str(error))
