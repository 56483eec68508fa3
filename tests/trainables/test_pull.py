"""Schedules of the relaxation pull."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trainables.pull import Pull


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "constant", "start": 0.3}, [0.3, 0.3, 0.3, 0.3, 0.3]),
        ({"kind": "linear", "start": 0.2, "end": 1.0}, [0.2, 0.4, 0.6, 0.8, 1.0]),
        ({"kind": "exponential", "start": 1e-4, "end": 1.0}, [1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        ({}, [1e-4, 10**-3.25, 10**-2.5, 10**-1.75, 1e-1]),
        (
            {"kind": "cosine", "start": 1.0, "end": 3.0},
            [1.0, 2 - math.sqrt(0.5), 2.0, 2 + math.sqrt(0.5), 3.0],
        ),
        ({"kind": "step", "start": 0.01, "end": 1.0, "steps": 3}, [0.01, 0.01, 0.1, 1.0, 1.0]),
        ({"kind": "linear", "start": 1.0, "end": 2.0, "warmup": 0.5}, [1.0, 1.0, 1.0, 1.5, 2.0]),
        ({"kind": "exponential", "start": 1.0, "end": 0.01, "warmup": 0.75}, [1.0, 1.0, 1.0, 1.0, 0.01]),
    ],
)
def test_each_schedule_has_its_values(settings: dict[str, Any], expected: list[float]) -> None:
    """At no, a quarter, half, three quarters and all of the training; the default is the paper's."""
    pull = Pull(**settings)
    assert [pull.value(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(expected)


def test_the_adaptive_curve_falls_from_a_right_angle_to_its_end() -> None:
    """By the same factor in equal times, after the warm-up."""
    pull = Pull(kind="adaptive", angle=0.9, warmup=0.2)
    assert [pull.curve(progress) for progress in (0.0, 0.2, 0.6, 1.0)] == pytest.approx([90, 90, 9, 0.9])


def test_an_adaptive_pull_rises_above_its_curve_falls_below_it_and_stays_in_its_range() -> None:
    """By a power of how far the largest angle is from the curve, whether there was a pull before or not."""
    pull = Pull(kind="adaptive", start=0.01, end=1.0, angle=0.9, rate=0.5)

    def next_(before: float, angle: float, progress: float) -> float:
        return float(pull.adapt(torch.tensor(before), torch.tensor(angle), progress))

    assert next_(0.1, 36.0, 0.5) == pytest.approx(0.2)
    assert next_(0.1, 2.25, 0.5) == pytest.approx(0.05)
    assert next_(0.0, 90.0, 0.0) == pytest.approx(0.01)
    assert next_(0.9, 90.0, 1.0) == 1.0
    assert next_(0.02, 0.0, 0.5) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0.0}, "start: need a number > 0, got 0.0"),
        ({"kind": "step", "steps": 1}, "steps: need a whole number >= 2, got 1"),
        ({"kind": "adaptive", "start": 0.1, "end": 0.1}, "end: need end > start where kind is adaptive"),
        ({"warmup": 1.0}, "warmup: need a number >= 0 and < 1, got 1.0"),
    ],
)
def test_a_pull_that_breaks_rules_is_refused(settings: dict[str, Any], message: str) -> None:
    """With the rule and the value."""
    with pytest.raises(ValueError, match=message):
        Pull(**settings)
