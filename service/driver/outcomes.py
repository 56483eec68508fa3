"""What a trial that ran to its end came to: its values, or why it has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
