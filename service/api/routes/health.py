"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response, status

from service.api.parts import Here
from service.api.views import Health, Readiness

router = APIRouter(tags=["health"])
OK = "ok"


@router.get("/healthz")
async def get_health() -> Health:  # no thread is needed for that: they may all be busy
    """Whether the process answers; says nothing of what it depends on."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready"}})
async def get_readiness(here: Here, response: Response) -> Readiness:
    """Whether sweeps can be taken and run. MLflow is not asked: nothing waits for it."""
    seen = await asyncio.gather(*(look.trouble() for look in here.looks.values()))
    troubles = dict(zip(here.looks, seen, strict=True))
    if here.settings.keys_required:  # it is told to strangers, and the words name hosts, users and files
        troubles = {name: "away" if trouble else "" for name, trouble in troubles.items()}
    loops = {loop.name: OK if loop.alive else "its thread has ended" for loop in here.loops}
    parts = {**{name: trouble or OK for name, trouble in troubles.items()}, **loops}
    ready = all(said == OK for said in parts.values())
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(ready=ready, parts=parts)
