"""Sweeps: listed, looked into."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from service.access import Key
from service.api.details import detail, elsewhere
from service.api.driver_logs import printed
from service.api.event_stream import EventStream, event_stream
from service.api.pages import MAX_NUMBER, MAX_PAGE, Limit, PageToken, page, place
from service.api.parts import Here, Parts
from service.api.versions import VERSIONED, Versioned
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
from service.domain import SweepState, TrialState

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


@router.get("", responses=VERSIONED)
def list_sweeps(
    here: Here,
    version: Versioned,
    state: Annotated[list[SweepState] | None, Query(description="Only these states; may be given many times")] = None,
    name: Annotated[str | None, Query(description="Only sweeps of this name")] = None,
    family: Annotated[str | None, Query(description="Only sweeps of this model family")] = None,
    limit: Limit = 100,
    page_token: PageToken = None,
) -> Sweeps:
    """Sweeps, newest first, a page at a time."""
    before = place(page_token, datetime, str)
    found = here.store.sweeps(states=state or (), name=name, family=family, limit=limit + 1, before=before)
    version.is_([(sweep.id, sweep.last_event) for sweep in found])
    sweeps, token = page(found, limit, lambda sweep: (sweep.created_at, sweep.id))
    return Sweeps(sweeps=[SweepView.model_validate(sweep) for sweep in sweeps], next_page_token=token)


@router.get("/{sweep_id}", responses=VERSIONED)
def get_sweep(sweep_id: str, here: Here, version: Versioned) -> SweepDetail:
    """A sweep, how far it is, and the best that it found."""
    sweep = here.store.sweep(sweep_id)
    seen = elsewhere(here, sweep)
    version.is_(sweep.last_event, sweep.tracked, seen)
    return detail(here, sweep, seen)


@router.get("/{sweep_id}/trials", responses=VERSIONED)
def list_trials(
    sweep_id: str,
    here: Here,
    version: Versioned,
    state: Annotated[list[TrialState] | None, Query(description="Only these states; may be given many times")] = None,
    limit: Limit = 100,
    page_token: PageToken = None,
) -> Trials:
    """The trials of a sweep, by number, a page at a time."""
    last_event = here.store.sweep(sweep_id).last_event
    (after,) = place(page_token, int) or (None,)
    found = here.store.trials(sweep_id, states=state or (), limit=limit + 1, after=after)
    version.is_(last_event, [trial.weights for trial in found])
    trials, token = page(found, limit, lambda trial: (trial.number,))
    return Trials(trials=[TrialView.model_validate(trial) for trial in trials], next_page_token=token)


@router.get("/{sweep_id}/measurements", responses=VERSIONED)
def list_measurements(
    sweep_id: str,
    here: Here,
    version: Versioned,
    trial: Annotated[str | None, Query(description="Only this trial's")] = None,
    limit: Limit = MAX_PAGE,
    page_token: PageToken = None,
) -> Measurements:
    """What the trials reported after each step (by default an epoch), by trial and step, a page at a time."""
    version.is_(here.store.sweep(sweep_id).last_event)
    after = place(page_token, str, int)
    found = here.store.measurements(sweep_id, trial_id=trial, limit=limit + 1, after=after)
    measured, token = page(found, limit, lambda one: (one.trial_id, one.step))
    return Measurements(measurements=[MeasurementView.model_validate(one) for one in measured], next_page_token=token)


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
    sweep by itself, for five minutes at most: a reader then comes back with the number of its last event.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        here.store.sweep(sweep_id)
        known = _number(last_event_id) if last_event_id else after
        key: Key | None = getattr(request.state, "key", None)
        address = request.client.host if request.client is not None else ""
        stream = event_stream(here.store, sweep_id, known, may_read=lambda: _is_good(here, key))
        return EventStream(stream, places=here.streams, reader=f"key {key.id}" if key is not None else address)
    found = here.store.events(sweep_id, after=after, limit=limit)
    return Events(events=[EventView.model_validate(event) for event in found])


def _is_good(here: Parts, key: Key | None) -> bool:
    if key is None:
        return True
    now = here.access.key(key.id)
    return now is not None and now.revoked_at is None


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) <= MAX_NUMBER:
        return int(text)
    message = f"need the number of an event, got {text!r}"
    raise RequestValidationError([{"loc": ("header", "Last-Event-ID"), "msg": message}])


@router.get("/{sweep_id}/logs", response_class=PlainTextResponse)
def get_logs(sweep_id: str, here: Here) -> Response:
    """What the sweep's drivers printed, one after the other; empty before there is one.

    Of a log of more than 4 MB there is the newest end, below a line that says so.
    """
    sweep = here.store.sweep(sweep_id)
    logs = [here.settings.driver_log(sweep_id, attempt) for attempt in range(1, sweep.attempt + 1)]
    newest = ""
    if logs and not logs[-1].exists():  # only the cluster knows of a driver that has no file (yet); it forgets others
        newest = here.launcher.logs(sweep_id, sweep.attempt)
        logs.pop()
    return StreamingResponse(printed(logs, newest), media_type="text/plain")
