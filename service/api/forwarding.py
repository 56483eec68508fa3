"""Requests that replicas on the Ray cluster answer: sent on as they came, their answers given back as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, final
from urllib.parse import quote

import httpx
from fastapi import Request, Response
from fastapi.routing import APIRoute

from service import trace
from service.api.unless_gone import unless_gone
from service.errors import NotFound, Unavailable
from service.inference.serving_config import ServingTable

SECRET = "x-sweepserve-secret"  # noqa: S105 - its name
ASKED = ("content-type", "content-encoding", "accept", "if-none-match", "inference-header-content-length")
"""Headers of requests that replicas read."""
ANSWERED = ("content-type", "etag", "retry-after", "inference-header-content-length")
"""Headers of answers that are the replica's."""
PATIENCE = 5.0
"""Seconds that are spent on asking again where no replica answered: one that died leaves others, or comes again."""
GRACE = 1.0
"""Seconds beyond a model's deadline, within which its replica tells of that itself."""


@final
class Forwarded(APIRoute):
    """A route that replicas answer where there are any; else this process does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What FastAPI calls."""
        here = super().get_route_handler()

        async def handle(request: Request) -> Response:
            replicas: Replicas | None = request.app.state.replicas
            return await (here(request) if replicas is None else replicas.answer(request))

        return handle


@final
class Replicas:
    """The replicas, as one address. Belongs to one event loop.

    Args:
        url: of Ray Serve's HTTP proxy.
        secret: gives what a replica wants to see; empty: nothing.
        serving: how each model is served; its deadlines hold for the whole way.
        deploy: sees to it that there are replicas; called again and again.
        patience: see `PATIENCE`.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: Callable[[], str],
        serving: ServingTable,
        deploy: Callable[[], object],
        patience: float = PATIENCE,
    ) -> None:
        self.deploy = deploy
        """Sees to it that there are replicas."""
        self._secret, self._serving, self._patience = secret, serving, patience
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._http = httpx.AsyncClient(base_url=url, limits=limits, timeout=None, trust_env=False)  # noqa: S113 - deadlines

    async def close(self) -> None:
        """Drops the connections."""
        await self._http.aclose()

    async def ready(self, name: str, version: int) -> None:
        """A replica has that version in memory; the others will when it is the champion.

        Raises:
            NotFound: there is none.
            Unavailable: it cannot be loaded, or no replica answers.
        """
        answer = await self._ask("GET", f"/v2/models/{quote(name, safe='')}/versions/{version}/ready", name=name)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise NotFound(answer.json()["error"])
        if answer.status_code != HTTPStatus.OK:
            raise Unavailable(f"version {version} of model {name!r} cannot be loaded by a replica")

    async def answer(self, request: Request) -> Response:
        """What a replica answers. Raises Unavailable where none does in time."""
        path = request.scope.get("raw_path", b"").decode("ascii") or quote(request.scope["path"])
        query = request.scope["query_string"].decode("ascii")
        headers = {name: request.headers[name] for name in ASKED if name in request.headers}
        work = self._ask(
            request.method,
            f"{path}?{query}" if query else path,
            name=request.path_params.get("name", ""),
            headers=headers,
            content=await request.body(),
        )
        answer = await unless_gone(request, work)
        kept = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
        return Response(answer.content, status_code=answer.status_code, headers=kept)

    async def _ask(
        self, method: str, path: str, *, name: str, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> httpx.Response:
        headers = {**(headers or {}), SECRET: self._secret(), "traceparent": trace.current()}
        deadline = self._serving[name].deadline
        try:
            async with asyncio.timeout(deadline + GRACE):
                return await self._insist(method, path, headers, content)
        except TimeoutError:
            raise Unavailable(f"no answer within {deadline:g} s: the replicas have too much to do") from None

    async def _insist(self, method: str, path: str, headers: dict[str, str], content: bytes) -> httpx.Response:
        """Asks again where a replica or the proxy died meanwhile: what it is asked changes nothing."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self._patience, 0.05
        while True:
            try:
                answer = await self._http.request(method, path, headers=headers, content=content)
            except httpx.TransportError as error:
                trouble = type(error).__name__
            else:
                if not _is_proxys(answer):
                    return answer
                trouble = f"{answer.status_code} {answer.text[:200]}"
            if loop.time() + pause > until:
                raise Unavailable(f"no replica answers at {self._http.base_url}: {trouble}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)


def _is_proxys(answer: httpx.Response) -> bool:
    """Ray's proxy says it in plain text: no replica, or one that died. A replica says nothing so."""
    return answer.status_code >= HTTPStatus.NOT_FOUND and answer.headers.get("content-type", "").startswith(
        "text/plain"
    )
