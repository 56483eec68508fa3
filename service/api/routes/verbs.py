"""Sweeps: stopped, cancelled, paused, resumed, extended, retried, deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, status

from service import verbs
from service.api.details import detail
from service.api.json_body import json_body, read_json
from service.api.parts import Here
from service.api.views import SweepDetail, SweepView
from service.errors import InvalidSpec
from trainables.config import Fault, nearest, shown

router = APIRouter(prefix="/v1/sweeps/{sweep_id}", tags=["sweeps"])

_EXTENSION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "trials": {"type": "integer", "minimum": 1, "description": "so many in all"},
                        "time_budget": {"type": "string", "description": "so much in all, as 6h"},
                    },
                    "minProperties": 1,
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.post("/stop", status_code=status.HTTP_202_ACCEPTED)
def stop_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Ends a sweep: its running trials end at their next report; what it found stays, and its best stays the model."""
    return detail(here, verbs.stop(here.store, sweep_id, clock=here.clock))


@router.post("/cancel", status_code=status.HTTP_202_ACCEPTED)
def cancel_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Ends a sweep and its running trials at once; their last checkpoints stay. It takes some seconds."""
    return detail(here, verbs.cancel(here.store, sweep_id, clock=here.clock))


@router.post("/pause", status_code=status.HTTP_202_ACCEPTED)
def pause_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Halts a sweep: no trial begins any more, those that run end at their next report and go on when it is resumed."""
    return detail(here, verbs.pause(here.store, sweep_id, clock=here.clock))


@router.post("/resume", status_code=status.HTTP_202_ACCEPTED)
def resume_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Goes on with a sweep that was paused or stopped; its unfinished trials go on from their checkpoints."""
    return detail(here, verbs.resume(here.store, sweep_id, clock=here.clock))


@router.post("/extend", status_code=status.HTTP_202_ACCEPTED, openapi_extra=_EXTENSION)
def extend_sweep(sweep_id: str, body: Annotated[bytes, Depends(json_body)], here: Here) -> SweepDetail:
    """Gives a sweep more trials, more time or both: so many, and so much, in all. One that has ended goes on."""
    asked = read_json(body)
    known = {"trials": int, "time_budget": str}
    if not isinstance(asked, dict):
        raise InvalidSpec([Fault((), f"need a mapping, got {shown(asked)}")])
    faults = [Fault((key,), f"unknown key {shown(key)}; {nearest(key, list(known))}") for key in asked.keys() - known]
    for key, kind in known.items():
        if key in asked and (not isinstance(asked[key], kind) or isinstance(asked[key], bool)):
            faults.append(
                Fault((key,), f"need {'a whole number' if kind is int else 'a text'}, got {shown(asked[key])}")
            )
    if faults:
        raise InvalidSpec(faults)
    return detail(here, verbs.extend(here.store, sweep_id, clock=here.clock, **asked))


@router.post("/retry", status_code=status.HTTP_202_ACCEPTED)
def retry_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Runs a sweep's failed trials again, from their checkpoints where they have any."""
    return detail(here, verbs.retry(here.store, sweep_id, clock=here.clock))


@router.delete("", status_code=status.HTTP_202_ACCEPTED)
def delete_sweep(sweep_id: str, here: Here) -> SweepDetail:
    """Removes a sweep with its checkpoints, its models and its runs in MLflow, as soon as MLflow answers.

    Not while another one that has not ended starts from its weights.
    """
    answer = detail(here, here.store.sweep(sweep_id))  # once it is being deleted, it may be gone in any moment
    deleted = verbs.delete(here.store, sweep_id, clock=here.clock)
    return answer.model_copy(update={**dict(SweepView.model_validate(deleted)), "waiting": ""})
