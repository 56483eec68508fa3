"""Sweeps: submitted, watched, stopped."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse

from service import sweeps
from service.api.json_body import json_body, read_json
from service.api.parts import Here
from service.api.views import (
    Events,
    EventView,
    Measurements,
    MeasurementView,
    SweepDetail,
    Sweeps,
    SweepView,
    Trials,
    TrialView,
)
from service.domain import NotFound, Sweep, SweepState, Trial, TrialState

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])
MAX_PAGE = 1000
MAX_NUMBER = 2**53
"""Beyond it JSON's numbers are not exact, and soon those of databases end."""
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SweepSpec"}}},
        }
    },
)
def submit_sweep(
    body: Annotated[bytes, Depends(json_body)], here: Here, request: Request, response: Response
) -> SweepDetail:
    """Takes a sweep; it runs as soon as the cluster takes it. A spec that breaks rules is answered with all of them."""
    sweep = sweeps.create(here.store, read_json(body), clock=here.clock)
    response.headers["Location"] = str(request.app.url_path_for("get_sweep", sweep_id=sweep.id))
    return _detail(here, sweep)


@router.get("")
def list_sweeps(
    here: Here,
    state: Annotated[list[SweepState] | None, Query(description="Only these states; may be given many times")] = None,
    name: Annotated[str | None, Query(description="Only sweeps of this name")] = None,
    limit: Limit = 100,
    page_token: Annotated[str | None, Query(description="The `next_page_token` of the page before")] = None,
) -> Sweeps:
    """Sweeps, newest first, a page at a time."""
    try:
        found = here.store.sweeps(states=state or (), name=name, limit=limit + 1, before=page_token)
    except NotFound as error:
        message = f"need the next_page_token of an earlier answer, got {page_token!r}"
        raise RequestValidationError([{"loc": ("query", "page_token"), "msg": message}]) from error
    page = found[:limit]
    return Sweeps(
        sweeps=[SweepView.model_validate(sweep) for sweep in page],
        next_page_token=page[-1].id if len(found) > limit else None,
    )


@router.get("/{sweep_id}")
def get_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """A sweep, how far it is, and the best that it found."""
    return _detail(here, here.store.sweep(sweep_id))


@router.get("/{sweep_id}/trials")
def list_trials(
    sweep_id: str,
    here: Here,
    state: Annotated[list[TrialState] | None, Query(description="Only these states; may be given many times")] = None,
) -> Trials:
    """The trials of a sweep, by number."""
    return _trials(here.store.trials(sweep_id, states=state or ()))


@router.get("/{sweep_id}/leaderboard")
def get_leaderboard(sweep_id: str, here: Here, limit: Limit = 100) -> Trials:
    """The completed trials of a sweep, best first."""
    return _trials(sweeps.leaderboard(here.store, sweep_id, limit=limit))


@router.get("/{sweep_id}/measurements")
def list_measurements(
    sweep_id: str, here: Here, trial: Annotated[str | None, Query(description="Only this trial's")] = None
) -> Measurements:
    """What the trials reported after each epoch, by trial and epoch."""
    found = here.store.measurements(sweep_id, trial_id=trial)
    return Measurements(measurements=[MeasurementView.model_validate(one) for one in found])


@router.get("/{sweep_id}/events")
def list_events(
    sweep_id: str,
    here: Here,
    after: Annotated[
        int, Query(ge=0, le=MAX_NUMBER, description="The number of the last event that is known already")
    ] = 0,
    limit: Limit = MAX_PAGE,
) -> Events:
    """What happened in a sweep since a given event; no events: nothing did."""
    found = here.store.events(sweep_id, after=after, limit=limit)
    return Events(events=[EventView.model_validate(event) for event in found])


@router.post("/{sweep_id}/stop", status_code=status.HTTP_202_ACCEPTED)
def stop_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Ends a sweep: running trials stop, finished ones stay, the best stays the model. It takes some seconds."""
    return _detail(here, sweeps.stop(here.store, sweep_id, clock=here.clock))


@router.get("/{sweep_id}/logs", response_class=PlainTextResponse)
def get_logs(sweep_id: str, here: Here) -> str:
    """What the sweep's drivers printed, one after the other; empty before there is one."""
    sweep = here.store.sweep(sweep_id)
    return "".join(_log(here, sweep, attempt) for attempt in range(1, sweep.attempt + 1))


def _log(here: Here, sweep: Sweep, attempt: int) -> str:
    """From the driver's own file, which outlives Ray's; only the cluster knows a newest driver that has none (yet)."""
    try:
        return here.settings.driver_log(sweep.id, attempt).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return here.launcher.logs(sweep.id, attempt) if attempt == sweep.attempt else ""


def _detail(here: Here, sweep: Sweep) -> SweepDetail:
    best = sweeps.leaderboard(here.store, sweep.id, limit=1)
    return SweepDetail(
        **SweepView.model_validate(sweep).model_dump(),
        spec=sweep.spec,
        counts=here.store.count_trials(sweep.id),
        best=TrialView.model_validate(best[0]) if best else None,
        mlflow_url=here.tracker.url(sweep),
        tracked=sweep.tracked,
    )


def _trials(trials: list[Trial]) -> Trials:
    return Trials(trials=[TrialView.model_validate(trial) for trial in trials])
