"""A page of another site must not read this API through a name of its own that leads here (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Collection
from typing import final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem
from service.settings import is_loopback

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@final
class KnownHosts:
    """ASGI middleware: a request by a name that is not ours is answered 421.

    An API on loopback is known by loopback's names and by `others`; one on a network by `others`, or by any name where
    there are none.

    Args:
        app: answers the rest.
        host: where it listens.
        others: further names that it goes by, without ports.
    """

    def __init__(self, app: ASGIApp, *, host: str, others: Collection[str]) -> None:
        self._app = app
        known = {name.lower() for name in others}
        self._known = known | LOOPBACK | {host.lower()} if is_loopback(host) else known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http" or not self._known:
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if _name(host) in self._known:
            await self._app(scope, receive, send)
            return
        refusal = problem(
            421,
            f"this service does not go by the name {host!r} (SWEEPSERVE_ALLOWED_HOSTS)",
            instance=scope["path"],
        )
        await refusal(scope, receive, send)


def _name(host: str) -> str:
    """The host of a Host header without its port: `[::1]:8000` is `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
