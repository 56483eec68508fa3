"""Learning-rate schedules."""

from __future__ import annotations

import math

import pytest

from trainables.config import ConfigError
from trainables.schedules import Schedule


def multipliers(iterations: int, **settings: object) -> list[float]:
    """The whole course of a schedule."""
    schedule = Schedule.from_dict(settings)
    return [schedule.multiplier(iteration, iterations) for iteration in range(iterations)]


def test_constant_is_constant() -> None:
    """The default leaves the learning rate alone."""
    assert multipliers(5) == [1.0] * 5


def test_steps_fall_at_their_shares() -> None:
    """A tenth from half of the budget on, a hundredth from three quarters on."""
    assert multipliers(8, kind="step") == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert multipliers(4, kind="step", milestones=[0.75], factor=0.5) == pytest.approx([1, 1, 1, 0.5])


def test_cosine_follows_the_formula() -> None:
    """From 1 down half a cosine wave to `end`."""
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)]
    assert multipliers(10, kind="cosine", end=0.2) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_warm_up_rises_in_a_line_to_the_full_rate(kind: str) -> None:
    """A quarter of the budget is warm-up; then every schedule starts from the full rate."""
    assert multipliers(16, kind=kind, warm_up=0.25)[:5] == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0], abs=1e-9 if kind != "cosine" else 0.0
    )


def test_nothing_is_ever_zero_or_above_one() -> None:
    """Every iteration of every kind moves the weights, and none by more than the learning rate."""
    for kind in ("constant", "step", "cosine"):
        for warm_up in (0.0, 0.01, 0.9):
            for iterations in (1, 2, 7):
                course = multipliers(iterations, kind=kind, warm_up=warm_up)
                assert all(0 < multiplier <= 1 for multiplier in course), (kind, warm_up, iterations)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"milestones": [1.5]}, "milestones"), ({"warm_up": 1.0}, "warm_up"), ({"kind": "linear"}, "kind")],
)
def test_illegal_settings_are_named(settings: dict[str, object], name: str) -> None:
    """Shares lie within the budget."""
    with pytest.raises(ConfigError, match=name):
        Schedule.from_dict(settings)
