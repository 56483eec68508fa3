"""Sweeps: listed, looked into."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, StreamingResponse

from service import sweeps
from service.api.details import detail
from service.api.event_stream import event_stream
from service.api.parts import Here
from service.api.views import (
    Events,
    EventView,
    Leaderboard,
    Measurements,
    MeasurementView,
    PointView,
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
_AS_IT_COMES = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter is what nginx asks for
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.get("")
def list_sweeps(
    here: Here,
    state: Annotated[list[SweepState] | None, Query(description="Only these states; may be given many times")] = None,
    name: Annotated[str | None, Query(description="Only sweeps of this name")] = None,
    family: Annotated[str | None, Query(description="Only sweeps of this model family")] = None,
    limit: Limit = 100,
    page_token: Annotated[str | None, Query(description="The `next_page_token` of the page before")] = None,
) -> Sweeps:
    """Sweeps, newest first, a page at a time."""
    try:
        found = here.store.sweeps(states=state or (), name=name, family=family, limit=limit + 1, before=page_token)
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
    return detail(here, here.store.sweep(sweep_id))


@router.get("/{sweep_id}/trials")
def list_trials(
    sweep_id: str,
    here: Here,
    state: Annotated[list[TrialState] | None, Query(description="Only these states; may be given many times")] = None,
) -> Trials:
    """The trials of a sweep, by number."""
    return _trials(here.store.trials(sweep_id, states=state or ()))


@router.get("/{sweep_id}/leaderboard")
def get_leaderboard(sweep_id: str, here: Here, limit: Limit = 100) -> Leaderboard:
    """The points of a sweep that have a completed trial, best first."""
    found = sweeps.leaderboard(here.store, sweep_id, limit=limit)
    return Leaderboard(points=[PointView.model_validate(result) for result in found])


@router.get("/{sweep_id}/measurements")
def list_measurements(
    sweep_id: str, here: Here, trial: Annotated[str | None, Query(description="Only this trial's")] = None
) -> Measurements:
    """What the trials reported after each epoch, by trial and epoch."""
    found = here.store.measurements(sweep_id, trial_id=trial)
    return Measurements(measurements=[MeasurementView.model_validate(one) for one in found])


@router.get(
    "/{sweep_id}/events",
    response_model=Events,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def list_events(
    sweep_id: str,
    here: Here,
    request: Request,
    after: Annotated[
        int, Query(ge=0, le=MAX_NUMBER, description="The number of the last event that is known already")
    ] = 0,
    limit: Limit = MAX_PAGE,
    last_event_id: Annotated[
        str | None, Header(description="The same for a stream, as browsers send it when they come back to one")
    ] = None,
) -> Any:
    """What happened in a sweep since a given event; no events: nothing did.

    With `Accept: text/event-stream` they come as they happen, as Server-Sent Events, until nothing more happens to the
    sweep by itself.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        here.store.sweep(sweep_id)
        known = _number(last_event_id) if last_event_id else after
        stream = event_stream(here.store, sweep_id, known)
        return StreamingResponse(stream, media_type="text/event-stream", headers=_AS_IT_COMES)
    found = here.store.events(sweep_id, after=after, limit=limit)
    return Events(events=[EventView.model_validate(event) for event in found])


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) <= MAX_NUMBER:
        return int(text)
    message = f"need the number of an event, got {text!r}"
    raise RequestValidationError([{"loc": ("header", "Last-Event-ID"), "msg": message}])


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


def _trials(trials: list[Trial]) -> Trials:
    return Trials(trials=[TrialView.model_validate(trial) for trial in trials])
