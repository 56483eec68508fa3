"""A sweep as the API shows it whole."""

from __future__ import annotations

from service import sweeps
from service.api.parts import Parts
from service.api.views import SweepDetail, SweepView, TrialView
from service.domain import Sweep, SweepState
from service.reconciler import waiting_for


def version_of(here: Parts, sweep: Sweep) -> tuple[object, ...]:
    """What `detail` depends on, without most of it: all that happens in a sweep is an event."""
    return sweep.last_event, sweep.tracked, _waiting(here, sweep), here.tracker.url(sweep)


def detail(here: Parts, sweep: Sweep) -> SweepDetail:
    """The sweep, how far it is, and the best that it found."""
    best = sweeps.best_trials(here.store, sweep.id, limit=1)
    return SweepDetail(
        **SweepView.model_validate(sweep).model_dump(),
        spec=sweep.spec,
        counts=here.store.count_trials(sweep.id),
        best=TrialView.model_validate(best[0]) if best else None,
        waiting=_waiting(here, sweep),
        mlflow_url=here.tracker.url(sweep),
        tracked=sweep.tracked,
    )


def _waiting(here: Parts, sweep: Sweep) -> str:
    if sweep.state is SweepState.RUNNING:
        return here.settings.disk.shortage
    return waiting_for(here.store, sweep, max_running_sweeps=here.settings.max_running_sweeps)
