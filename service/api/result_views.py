"""The shapes of what sweeps found. See `views`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from service.api.views import Number, Page, TrialView, View
from service.domain import TrialState


class PointView(View):
    """A point of a sweep and what its completed trials came to: numbers one an objective, in the spec's order."""

    number: int
    """Of its first trial."""
    point: Mapping[str, Any]
    """The searched settings, by dotted name."""
    values: tuple[Number, ...]
    """What it is compared by: the mean or the best of its trials, as `spec.search.aggregate` says."""
    mean: tuple[Number, ...]
    standard_deviation: tuple[Number, ...] | None
    """Of a sample (n - 1); null: only one trial has completed."""
    best: tuple[Number, ...]
    front: int
    """1: the Pareto front, which no point beats in everything; 2: only points of the first one do; and so on."""
    trials: list[TrialView]
    """The completed ones, by repeat."""


class Leaderboard(Page):
    """A page of a sweep's points by merit, best first."""

    points: list[PointView]


class ObjectiveView(View):
    """What points are compared by."""

    metric: str
    mode: Literal["max", "min"]


class Pareto(Page):
    """A page of the points that no other one beats in everything, by the first objective, best first."""

    objectives: list[ObjectiveView]
    """What each of a point's `values` is."""
    points: list[PointView]


class Importance(View):
    """How much each parameter matters for an objective."""

    objective: str
    points: int
    """So many completed points were looked at, ..."""
    trials: int
    """... with so many completed trials."""
    importances: Mapping[str, Number]
    """Share in the objective's spread, by the parameter's dotted name, largest first; together 1."""


class Curve(View):
    """What a trial reported, as columns."""

    trial_id: str
    number: int
    """Of the trial."""
    state: TrialState
    steps: list[int]
    """Steps (by default epochs), counted from 1, in order."""
    values: Mapping[str, list[Number | None]]
    """By metric, one a step; null: it was not reported there."""


class Curves(Page):
    """A page of learning curves, by trial number."""

    metrics: list[str]
    unmeasured: list[str]
    """Those of `metrics` that no trial of this page has reported; all of them while nothing is measured yet."""
    curves: list[Curve]
