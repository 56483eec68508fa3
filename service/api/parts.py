"""What the routes work with: handed to `create_app`, found by each request in its app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, status
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from service.access import Access
from service.api.background import Loop
from service.api.event_stream import OpenStreams
from service.api.forwarding import Replicas
from service.api.look import Look
from service.inference.predictor import Predictors
from service.leaderboards import Leaderboards
from service.ports import Clock, Launcher, Store, Tracker
from service.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """What models are asked with, in the API's process or in a replica."""

    store: Store
    settings: Settings
    predictors: Predictors


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The service's parts, real ones or fakes."""

    store: Store
    access: Access
    launcher: Launcher
    tracker: Tracker
    clock: Clock
    settings: Settings
    predictors: Predictors
    replicas: Replicas | None
    """They answer about models instead of this process."""
    metrics: CollectorRegistry
    leaderboards: Leaderboards
    loops: tuple[Loop, ...]
    """What goes on in the background."""
    streams: OpenStreams
    """Which places for streams of events are taken."""
    looks: Mapping[str, Look]
    """At what sweeps cannot be taken and run without."""


async def _parts(request: Request) -> Parts:  # FastAPI would call what is not async in a thread
    _refuse_nul(request)
    parts: Parts = request.app.state.parts
    return parts


async def model_parts(request: Request) -> ModelParts:
    """What a request about a model is answered with. Raises HTTPException 400 for a name that no database takes."""
    _refuse_nul(request)
    parts: ModelParts = request.app.state.models
    return parts


def _refuse_nul(request: Request) -> None:
    scope = request.scope  # not request.url, which takes as long to make as a small model
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL can not even be asked for it
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "need names without the character NUL")


Here = Annotated[Parts, Depends(_parts)]
"""The parts, as an argument of a route."""

Asked = Annotated[ModelParts, Depends(model_parts)]
"""Those that models are asked with, as an argument of a route that a replica has too."""
