"""Sweeps that learn from earlier ones: what fits is known to the search, what does not compare is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.adapters.memory_store import MemoryStore
from service.adapters.optuna_search import Search
from service.domain import Sweep, Trial, TrialState
from service.spec import SweepSpec
from service.warm_start import faults, known

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RATE = {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}


def make_spec(**changes: Any) -> SweepSpec:
    """A small sweep."""
    document = {
        "name": "test",
        "family": "narrow_resnet",
        "data": {"name": "digits"},
        "space": {"train.learning_rate": RATE},
        **changes,
    }
    return SweepSpec.from_dict(document)


@pytest.fixture(name="store")
def _store() -> MemoryStore:
    """A store with the sweep `old`: two points of two repeats that completed, one trial that failed, a fixed size."""
    spec = make_spec(fixed={"train.batch_size": 32}, search={"repeats": 2})
    store = MemoryStore()
    store.add_sweep(Sweep(id="old", name="test", spec=spec.to_dict(), created_at=NOW))
    for number, value in enumerate([0.5, 0.7, 0.8, 0.6, None]):
        first, repeat = divmod(number, 2)
        point = {"train.learning_rate": 0.001 * 10**first}
        trial = Trial(id=f"old-{number}", sweep_id="old", number=number, repeat=repeat, point=point, created_at=NOW)
        store.add_trial(trial)
        state = TrialState.FAILED if value is None else TrialState.COMPLETED
        store.move_trial(trial.id, state, at=NOW, values=None if value is None else (value,))
    return store


def test_completed_points_that_fit_are_known(store: MemoryStore) -> None:
    """With the values that they counted with; what was fixed there may be searched here."""
    space = {"train.learning_rate": RATE, "train.batch_size": {"kind": "int", "low": 16, "high": 64}}
    found = known(make_spec(space=space, search={"warm_start": ["old"]}), store)
    assert [dict(one.point) for one in found] == [
        {"train.learning_rate": 0.001, "train.batch_size": 32},
        {"train.learning_rate": 0.01, "train.batch_size": 32},
    ]
    assert [one.values for one in found] == [pytest.approx((0.6,)), pytest.approx((0.7,))]


@pytest.mark.parametrize(
    ("space", "count"),
    [
        ({"train.learning_rate": {**RATE, "high": 0.005}}, 1),
        ({"train.learning_rate": RATE, "train.weight_decay": RATE}, 0),
    ],
)
def test_points_of_another_space_are_left_out(store: MemoryStore, space: dict[str, Any], count: int) -> None:
    """Values out of range, and parameters that they did not set."""
    assert len(known(make_spec(space=space, search={"warm_start": ["old"]}), store)) == count


def test_what_completes_after_a_sweep_was_submitted_is_not_known(store: MemoryStore) -> None:
    """Its drivers know the same points, however many the earlier sweep has by then."""
    spec = make_spec(search={"warm_start": ["old"]})
    before = known(spec, store, by=NOW)
    trial = Trial(id="old-5", sweep_id="old", number=5, repeat=1, point={"train.learning_rate": 0.1}, created_at=NOW)
    store.add_trial(trial)
    store.move_trial(trial.id, TrialState.COMPLETED, at=NOW + timedelta(seconds=1), values=(0.9,))
    assert known(spec, store, by=NOW) == before
    assert len(known(spec, store)) == len(before) + 1 == 3


def test_a_warm_search_has_them_before_its_own(store: MemoryStore) -> None:
    """The sampler sees their values; they are no trials of this sweep."""
    spec = make_spec(search={"warm_start": ["old"], "trials": 1})
    search = Search(spec, known=known(spec, store))
    assert [trial.value for trial in search._study.trials] == [pytest.approx(0.6), pytest.approx(0.7)]
    assert search.ask() is not None
    assert search.ask() is None


def test_a_sweep_that_is_gone_is_passed_over() -> None:
    """It was there at submission and was deleted since."""
    assert known(make_spec(search={"warm_start": ["old"]}), MemoryStore()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"warm_start": ["none"]}}, "refers to nothing: there is no sweep 'none'"),
        ({"search": {"warm_start": ["old", "old"]}}, "need sweeps that differ, got old again"),
        ({"family": "spatial_rnn", "search": {"warm_start": ["old"]}}, "need a sweep of spatial_rnn"),
        (
            {"objectives": [{"metric": "validation/loss", "mode": "min"}], "search": {"warm_start": ["old"]}},
            "need the same objectives, sweep old has validation/accuracy",
        ),
    ],
)
def test_what_does_not_compare_is_a_fault(store: MemoryStore, changes: dict[str, Any], message: str) -> None:
    """Unknown sweeps, other families, other objectives."""
    (fault,) = faults(make_spec(**changes), store)
    last = len(changes["search"]["warm_start"]) - 1
    assert (fault.pointer, message in fault.message) == (f"/search/warm_start/{last}", True)


@pytest.mark.parametrize("sampler", ["random", "quasi-random", "grid", "cma-es"])
def test_a_sampler_that_learns_nothing_from_earlier_sweeps_is_a_fault(store: MemoryStore, sampler: str) -> None:
    """It would pass them over without a word; the fault names those that do learn."""
    space = {name: {"kind": "int", "low": 16, "high": 64} for name in ("train.batch_size", "train.max_epochs")}
    spec = make_spec(space=space, search={"sampler": sampler, "warm_start": ["old"]})
    (fault,) = faults(spec, store)
    assert fault.pointer == "/search/warm_start"
    assert fault.message == (
        f"need one of gp, nsga-ii, tpe as the sampler, which learn from earlier sweeps, got {sampler}"
    )


def test_a_sweep_may_start_from_one_that_compares(store: MemoryStore) -> None:
    """There is nothing to say then."""
    assert list(faults(make_spec(search={"warm_start": ["old"]}), store)) == []


def test_a_population_says_nothing_of_its_points(store: MemoryStore) -> None:
    """Its values are of trials that left them on the way."""
    population = make_spec(search={"trials": 2, "pbt": {"interval": 2}})
    store.add_sweep(Sweep(id="people", name="test", spec=population.to_dict(), created_at=NOW))
    (fault,) = faults(make_spec(search={"warm_start": ["people"]}), store)
    assert fault.pointer == "/search/warm_start/0"
    assert "sweep people is of population-based training" in fault.message
