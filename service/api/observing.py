"""Every request counted, timed, logged and followed."""

from __future__ import annotations

import logging
import time
from typing import Final, final

from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import trace
from service.api.headers import header
from service.api.metrics import Requests

NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own, by OpenTelemetry: it would log errors with all that they say, and asks at each request who listens."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
logger = logging.getLogger(__name__)


@final
class Observing:
    """ASGI middleware, the outermost: gives the request its trace, and tells the metrics and the log how it ended.

    The trace is that of the `traceparent` header, or a new one; its id is in `scope["state"]["trace_id"]` and in the
    answer's `X-Request-Id`.
    """

    def __init__(self, app: ASGIApp, *, requests: Requests, log: bool) -> None:
        self._app, self._requests, self._log = app, requests, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        traceparent = trace.child_of(header(scope, b"traceparent"))
        trace_id = trace.trace_id(traceparent)
        scope.setdefault("state", {})["trace_id"] = trace_id

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", trace_id.encode())]
            await send(message)

        with trace.following(traceparent):
            try:
                await self._app(scope, receive, seen)
            finally:
                self._tell(scope, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        # By the route's pattern: a path is whatever a stranger sends, and each would be a time series of its own.
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.observe(method, route, status, seconds)
        if self._log:
            key = scope.get("state", {}).get("key")
            data = {"method": method, "path": scope["path"], "status": status, "seconds": round(seconds, 6)}
            logger.info("request", extra={"data": {**data, "key": key.id if key is not None else ""}})
