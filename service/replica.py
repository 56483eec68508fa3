"""A replica: a process of the Ray cluster that answers about models, by the API's own routes.

Decoding, batches, engines and errors are those of the API's process; this file only puts them behind Ray Serve.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.adapters.sql_store import SqlStore
from service.api.forwarding import SECRET
from service.api.observing import NO_TELEMETRY
from service.api.parts import ModelParts
from service.api.problems import handle_errors, service_problem
from service.api.routes import answers, inference
from service.api.short_way import short_ways
from service.api.strict_json import StrictJSON
from service.api.validators import make_validators
from service.errors import Unauthorized
from service.inference.predictor import Predictors, settle_libraries
from service.inference.serving_config import serving_table
from service.ports import Store
from service.replicas_config import TOLD
from service.settings import Settings


def build(arguments: Mapping[str, str]) -> Any:
    """The Ray Serve application; Ray calls this in the cluster.

    Its arguments are the secret and the workers of `create_replica`, and the settings that the API tells.
    """
    from ray import serve

    secret, workers = arguments["secret"], int(arguments["workers"])

    def app() -> FastAPI:
        settle_libraries()
        settings = settings_by(arguments)
        store = SqlStore(settings.database_url, sweeps_root=settings.sweeps_root)
        return create_replica(store, settings=settings, secret=secret, workers=workers)

    return serve.deployment(name="Replica")(serve.ingress(app)()).bind()


def settings_by(arguments: Mapping[str, str]) -> Settings:
    """Those of this node's environment, but for what the API tells: it must answer as the API would."""
    return Settings.from_environment({**os.environ, **{name: arguments[name] for name in TOLD}})


def create_replica(store: Store, *, settings: Settings, secret: str, workers: int) -> FastAPI:
    """The ASGI app of a replica.

    Args:
        store: knows the models.
        settings: how they are served, and the limits.
        secret: whoever does not show it is answered 401; empty: everybody is welcome.
        workers: threads that run models.
    """
    app = FastAPI(openapi_url=None, lifespan=_lifespan, default_response_class=StrictJSON, telemetry=NO_TELEMETRY)
    predictors = Predictors(store, serving=serving_table(settings.serving), workers=workers)
    app.state.replicas = None
    app.state.models = ModelParts(store=store, settings=settings, predictors=predictors)
    app.router.routes.extend(short_ways(answers.router, inference.router))
    for resource in (answers, inference):
        app.include_router(resource.router)
    handle_errors(app)
    app.add_middleware(KnownAsker, secret=secret)
    make_validators(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    predictors: Predictors = app.state.models.predictors
    following = asyncio.create_task(predictors.follow())
    yield
    following.cancel()
    predictors.close()


@final
class KnownAsker:
    """ASGI middleware: only the API may ask, which has seen to keys and limits."""

    def __init__(self, app: ASGIApp, *, secret: str) -> None:
        self._app, self._secret = app, secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        shown = Headers(scope=scope).get(SECRET, "") if scope["type"] == "http" else self._secret
        if hmac.compare_digest(shown.encode(), self._secret.encode()):
            await self._app(scope, receive, send)
        else:
            error = Unauthorized("this is a replica of models: ask the API")
            await service_problem(error, instance=scope["path"])(scope, receive, send)
