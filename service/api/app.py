"""The HTTP API as an ASGI app, made of the parts that it is given."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from service import sweeps, tracking
from service.api.background import Loop
from service.api.body_limit import BodyLimit
from service.api.known_hosts import KnownHosts
from service.api.parts import Parts
from service.api.problems import MEDIA_TYPE, Problem, handle_errors
from service.api.routes import datasets, families, health, models
from service.api.routes import sweeps as sweep_routes
from service.api.strict_json import StrictJSON
from service.inference.predictor import Predictors
from service.ports import Clock, Launcher, Store, Tracker
from service.settings import Settings
from service.spec import SweepSpec

DESCRIPTION = """Hyperparameter sweeps of research vision models, and the models that they find.

Errors are `application/problem+json` (RFC 9457). Numbers that JSON has not are the texts `NaN`, `Infinity` and
`-Infinity`. Times are in UTC."""
ENDING = 2.0
"""Seconds that the background threads may take to end, together."""


def create_app(
    *, store: Store, launcher: Launcher, tracker: Tracker, clock: Clock, settings: Settings, predictors: Predictors
) -> FastAPI:
    """The app. While it is up, it also launches queued sweeps and keeps MLflow up to date."""
    loops = (
        Loop("reconciler", lambda: sweeps.reconcile(store, launcher, clock=clock)),
        Loop("tracker", lambda: tracking.drain(store, tracker)),
    )
    app = FastAPIOffline(  # the page at /docs needs nothing from the internet
        title="sweepserve",
        version="1",
        description=DESCRIPTION,
        lifespan=_lifespan,
        default_response_class=StrictJSON,
        generate_unique_id_function=_operation_id,
        redoc_url=None,
    )
    app.state.parts = Parts(
        store=store,
        launcher=launcher,
        tracker=tracker,
        clock=clock,
        settings=settings,
        predictors=predictors,
        loops=loops,
    )
    for resource in (sweep_routes, models, families, datasets, health):
        app.include_router(resource.router)
    app.add_api_route("/", _front_door, include_in_schema=False)
    handle_errors(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(KnownHosts, host=settings.host, others=settings.allowed_hosts.replace(",", " ").split())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loops: tuple[Loop, ...] = app.state.parts.loops
    for loop in loops:
        loop.start()
    yield
    for loop in loops:
        loop.end()
    deadline = time.monotonic() + ENDING
    for loop in loops:
        loop.join(max(0.0, deadline - time.monotonic()))


def _front_door() -> RedirectResponse:
    """Who comes with a browser wants the page that lists what there is."""
    return RedirectResponse("/docs")


def _operation_id(route: APIRoute) -> str:
    return route.name


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description of the API, with the errors that it really answers."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        shapes = schema["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            shapes.pop(unused, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        shapes.update(problem.pop("$defs"), Problem=problem, SweepSpec=SweepSpec.json_schema())
        for operation in (operation for path in schema["paths"].values() for operation in path.values()):
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "A problem (RFC 9457)",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
        app.openapi_schema = schema
    return app.openapi_schema
