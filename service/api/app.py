"""The HTTP API as an ASGI app, made of the parts that it is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from service import tracking
from service.access import Access
from service.api.auditing import Auditing
from service.api.background import Loop
from service.api.body_limit import BodyLimit
from service.api.event_stream import OpenStreams
from service.api.forwarding import Replicas
from service.api.guard import Guard
from service.api.known_hosts import KnownHosts
from service.api.look import Look
from service.api.metrics import Requests, State
from service.api.observing import NO_TELEMETRY, Observing
from service.api.openapi import openapi
from service.api.parts import ModelParts, Parts
from service.api.problems import handle_errors
from service.api.routes import answers, audit, datasets, families, health, inference, models, results, submission, verbs
from service.api.routes import metrics as metrics_routes
from service.api.routes import sweeps as sweep_routes
from service.api.short_way import short_ways
from service.api.strict_json import StrictJSON
from service.api.validators import make_validators
from service.errors import ServiceError
from service.inference.predictor import Predictors
from service.leaderboards import Leaderboards
from service.leadership import Leader
from service.ports import Clock, Launcher, Store, Tracker
from service.reconciler import reconcile
from service.settings import Settings

DESCRIPTION = """Hyperparameter sweeps of research vision models, and the models that they find.

Errors are `application/problem+json` (RFC 9457). Numbers that JSON has not are the texts `NaN`, `Infinity` and
`-Infinity`. Times are in UTC."""
DEPLOYED_EVERY = 5.0
"""Seconds between looks at whether the replicas are deployed; Ray itself replaces those that die."""
ENDING = 2.0
"""Seconds that the background threads may take to end, together."""


def create_app(
    *,
    store: Store,
    access: Access,
    launcher: Launcher,
    tracker: Tracker,
    clock: Clock,
    settings: Settings,
    predictors: Predictors,
    replicas: Replicas | None = None,
) -> FastAPI:
    """The app. While it is up, it also launches queued sweeps and keeps MLflow up to date.

    Where there are replicas, they answer about models, and it sees to it that they are there.
    """
    leader = Leader(store)
    refused: dict[str, int] = {}

    def launch() -> None:
        reconcile(
            store,
            launcher,
            clock=clock,
            trials_folder=settings.trials,
            max_running_sweeps=settings.max_running_sweeps,
            refused=refused,
        )

    def track() -> None:
        try:
            tracking.remove(store, tracker, sweeps_root=settings.sweeps_root)
        finally:  # a sweep that cannot be removed does not keep the others from being shown
            tracking.drain(store, tracker)

    loops = (
        Loop("leader", leader.renew),
        Loop("reconciler", leader.alone(launch)),
        Loop("tracker", leader.alone(track)),
        *([Loop("replicas", leader.alone(replicas.deploy), every=DEPLOYED_EVERY)] if replicas is not None else []),
    )
    metrics = CollectorRegistry()
    metrics.register(State(store, launcher, clock, settings.disk))
    app = FastAPIOffline(  # the page at /docs needs nothing from the internet
        title="sweepserve",
        version="1",
        description=DESCRIPTION,
        lifespan=_lifespan,
        default_response_class=StrictJSON,
        generate_unique_id_function=_operation_id,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.state.parts = Parts(
        store=store,
        access=access,
        launcher=launcher,
        tracker=tracker,
        clock=clock,
        settings=settings,
        predictors=predictors,
        replicas=replicas,
        metrics=metrics,
        leaderboards=Leaderboards(store),
        loops=loops,
        streams=OpenStreams(),
        looks={
            "store": Look("store", lambda: store.sweeps(limit=1), clock),
            "cluster": Look("cluster", lambda: launcher.resources(), clock),
        },
    )
    app.state.models = ModelParts(store=store, settings=settings, predictors=predictors)
    app.state.replicas = replicas
    app.state.leader = leader
    if replicas is None:
        app.router.routes.extend(short_ways(answers.router, inference.router))
    for resource in (
        answers,  # routes are looked through in this order, and these two are asked most
        inference,
        submission,
        verbs,
        sweep_routes,
        results,
        models,
        families,
        datasets,
        audit,
        metrics_routes,
        health,
    ):
        app.include_router(resource.router)
    app.add_api_route("/", _front_door, include_in_schema=False)
    handle_errors(app)
    # The last one is asked first.
    app.add_middleware(Auditing, access=access, clock=clock)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Guard, access=access, clock=clock, settings=settings)
    app.add_middleware(KnownHosts, host=settings.host, others=settings.allowed_hosts.replace(",", " ").split())
    app.add_middleware(Observing, requests=Requests(metrics), log=settings.json_logs)
    app.openapi = lambda: openapi(app, keys_required=settings.keys_required)  # type: ignore[method-assign]
    make_validators(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loops: tuple[Loop, ...] = app.state.parts.loops
    predictors: Predictors = app.state.parts.predictors
    for loop in loops:
        loop.start()
    replicas: Replicas | None = app.state.replicas
    following = None  # replicas see to that themselves
    if replicas is None:
        following = asyncio.create_task(predictors.follow())
    yield
    if following is not None:
        following.cancel()
    predictors.close()
    if replicas is not None:
        await replicas.close()
    for loop in loops:
        loop.end()
    deadline = time.monotonic() + ENDING
    for loop in loops:
        loop.join(max(0.0, deadline - time.monotonic()))
    with suppress(ServiceError):  # or the next process waits until the lease has grown old
        app.state.leader.resign()


def _front_door() -> RedirectResponse:
    """Who comes with a browser wants the page that lists what there is."""
    return RedirectResponse("/docs")


def _operation_id(route: APIRoute) -> str:
    return route.name
