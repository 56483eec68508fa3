"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response, status

from service.api.parts import Here
from service.api.views import Health, Readiness
from service.errors import ServiceError

router = APIRouter(tags=["health"])


@router.get("/healthz")
def get_health() -> Health:
    """Whether the process answers; says nothing of what it depends on."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready"}})
def get_readiness(here: Here, response: Response) -> Readiness:
    """Whether sweeps can be taken and run. MLflow is not asked: nothing waits for it."""
    parts = {
        "store": _trouble(lambda: here.store.sweeps(limit=1)),
        "cluster": _trouble(here.launcher.resources),
        **{loop.name: "ok" if loop.alive else "its thread has ended" for loop in here.loops},
    }
    ready = all(trouble == "ok" for trouble in parts.values())
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(ready=ready, parts=parts)


def _trouble(ask: Callable[[], object]) -> str:
    try:
        ask()
    except ServiceError as error:
        return str(error)
    return "ok"
