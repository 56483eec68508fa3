"""What a trial came to: its values, or why it has none, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.plan import Objective
from trainables.trainable import Report


def values(objectives: Sequence[Objective], metrics: Mapping[str, float]) -> tuple[float, ...] | None:
    """One a objective, in order; None where one was not measured or is not finite."""
    found = tuple(metrics.get(objective.metric, math.nan) for objective in objectives)
    return found if all(map(math.isfinite, found)) else None


def why_none(objectives: Sequence[Objective], report: Report) -> str:
    """Why a trial with this last report has no values, for people."""
    measured = report["best_metrics"]
    for metric in (objective.metric for objective in objectives):
        if metric not in measured:
            return f"it did not measure {metric}; it measured: {', '.join(measured) or 'none'}"
        if not math.isfinite(measured[metric]):
            return f"{metric} is {measured[metric]} at step {report['best_step']}"
    raise AssertionError("every objective was measured")


def measured(objectives: Sequence[Objective], values: Sequence[float] | None) -> str:
    """What a trial's values say, each after a comma; empty: it has none."""
    named = zip(objectives, values or (), strict=False)
    return "".join(f", {objective.metric} = {_shown(value)}" for objective, value in named)


def settings(point: Mapping[str, Any]) -> str:
    """A trial's point, with commas."""
    return ", ".join(f"{name} = {_shown(value)}" for name, value in point.items())


def steps(count: int) -> str:
    """So many steps."""
    return f"{count} step{'' if count == 1 else 's'}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
