"""A sweep as the API shows it whole."""

from __future__ import annotations

from typing import NamedTuple

from service import sweeps
from service.api.parts import Parts
from service.api.views import SweepDetail, SweepView, TrialView
from service.domain import Sweep, SweepState
from service.reconciler import waiting_for


class Elsewhere(NamedTuple):
    """What `detail` shows that is not a sweep's own."""

    waiting: str
    mlflow_url: str | None


def elsewhere(here: Parts, sweep: Sweep) -> Elsewhere:
    """What the disk, the queue and MLflow say of the sweep."""
    if sweep.state is SweepState.RUNNING:
        waiting = sweep.reason or here.settings.disk.shortage  # what its driver said, or will say of the next trial
    else:
        waiting = waiting_for(here.store, sweep, max_running_sweeps=here.settings.max_running_sweeps)
    return Elsewhere(waiting, here.tracker.url(sweep))


def detail(here: Parts, sweep: Sweep, seen: Elsewhere | None = None) -> SweepDetail:
    """The sweep, how far it is, and the best that it found."""
    seen = seen or elsewhere(here, sweep)
    best = sweeps.best_trials(here.store, sweep.id, limit=1)
    return SweepDetail(
        **SweepView.model_validate(sweep).model_dump(),
        spec=sweep.spec,
        counts=here.store.count_trials(sweep.id),
        best=TrialView.model_validate(best[0]) if best else None,
        waiting=seen.waiting,
        mlflow_url=seen.mlflow_url,
        tracked=sweep.tracked,
    )
