"""What the trials of a point come to, and which point is better."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Trial, TrialState
from service.points import Aggregate, Mode, fronts, ranked, result

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trial(number: int, value: float | None, *, repeat: int = 0) -> Trial:
    """A completed trial with this value, or a failed one."""
    return Trial(
        id=f"s-{number:04}",
        sweep_id="s",
        number=number,
        repeat=repeat,
        point={"a": number - repeat},
        state=TrialState.FAILED if value is None else TrialState.COMPLETED,
        values=None if value is None else (value,),
        created_at=NOW,
    )


def repeats(first: int, *values: float | None) -> list[Trial]:
    """The trials of one point."""
    return [trial(first + repeat, value, repeat=repeat) for repeat, value in enumerate(values)]


@pytest.mark.parametrize(
    ("mode", "aggregate", "value", "best"),
    [("max", "mean", 0.6, 0.9), ("max", "best", 0.9, 0.9), ("min", "mean", 0.6, 0.3), ("min", "best", 0.3, 0.3)],
)
def test_a_point_counts_with_the_mean_or_the_best(mode: Mode, aggregate: Aggregate, value: float, best: float) -> None:
    """Of the trials that completed; the standard deviation is a sample's."""
    found = result(repeats(4, 0.3, None, 0.9), modes=[mode], aggregate=aggregate)
    assert found is not None
    assert found.number == 4
    assert found.values == pytest.approx((value,))
    assert (found.best, found.mean) == ((best,), pytest.approx((0.6,)))
    assert found.standard_deviation == pytest.approx((math.sqrt(0.18),))
    assert [one.number for one in found.trials] == [4, 6]


def test_one_trial_has_no_spread() -> None:
    """A standard deviation needs two."""
    found = result(repeats(0, None, 0.5), modes=["max"], aggregate="mean")
    assert found is not None
    assert (found.values, found.standard_deviation) == ((0.5,), None)


def test_a_point_without_a_completed_trial_has_no_result() -> None:
    """It is not on the leaderboard either."""
    assert result(repeats(0, None, None), modes=["max"], aggregate="mean") is None
    assert ranked(repeats(0, None, None), modes=["max"], aggregate="mean") == []


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Nowhere more than the other, and somewhere less."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@given(
    st.integers(1, 3).flatmap(lambda count: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * count), max_size=30))
)
def test_fronts_are_what_their_definition_says(costs: list[tuple[float, ...]]) -> None:
    """Taken away front by front, each is what nothing left dominates; equals share a front."""
    found, left, front = fronts(costs), list(range(len(costs))), 0
    while left:
        front += 1
        best = [i for i in left if not any(dominates(costs[j], costs[i]) for j in left)]
        assert [i for i in left if found[i] == front] == best
        left = [i for i in left if i not in best]


def test_ten_thousand_points_find_their_fronts_at_once() -> None:
    """Two objectives do not take a comparison of all pairs (0.1 s when this was written; pairs take minutes)."""
    costs = [(float(i * 7919 % 10007), float(i * 104729 % 10007)) for i in range(10_000)]
    started = time.perf_counter()
    assert min(fronts(costs)) == 1
    assert time.perf_counter() - started < 5


def test_several_objectives_are_ranked_by_front() -> None:
    """First the points that none beats in everything, the best by the first objective before the others."""
    values = [(0.9, 100.0), (0.8, 10.0), (0.7, 50.0), (0.95, 200.0), (0.8, 20.0)]
    trials = [replace(trial(n, 0.0), values=value) for n, value in enumerate(values)]
    found = ranked(trials, modes=["max", "min"], aggregate="mean")
    assert [(one.front, one.number) for one in found] == [(1, 3), (1, 0), (1, 1), (2, 4), (3, 2)]


@given(st.lists(st.lists(st.integers(0, 4).map(float), min_size=2, max_size=2), max_size=12), st.data())
def test_what_was_ranked_before_need_not_be_computed_again(values: list[list[float]], data: st.DataObject) -> None:
    """Trials that come later, of old points too, in any order, make what all of them make at once."""
    trials = [
        replace(trial(2 * (n // 2) + n % 2, 0.0, repeat=n % 2), values=tuple(one)) for n, one in enumerate(values)
    ]
    shuffled = data.draw(st.permutations(trials))
    cut = data.draw(st.integers(0, len(trials)))
    for aggregate in ("mean", "best"):
        of: dict[str, Any] = {"modes": ["max", "min"], "aggregate": aggregate}
        assert ranked(shuffled[cut:], **of, known=ranked(shuffled[:cut], **of)) == ranked(trials, **of)


def test_points_are_ranked_and_not_their_trials() -> None:
    """One very good trial does not make a good mean; equals go by number."""
    trials = [*repeats(0, 1.0, 0.0), *repeats(2, 0.6, 0.8), *repeats(4, 0.7), *repeats(6, 0.5, 0.5)]
    assert [one.number for one in ranked(trials, modes=["max"], aggregate="mean")] == [2, 4, 0, 6]
    assert [one.number for one in ranked(trials, modes=["max"], aggregate="best")] == [0, 2, 4, 6]
    assert [one.number for one in ranked(trials, modes=["min"], aggregate="mean")] == [0, 6, 2, 4]
