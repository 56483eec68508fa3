"""A page of another site must not read this API, through a name of its own that leads here, nor change anything.

The first is DNS rebinding; the second needs no answer that the page may read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem
from service.api.scopes import HEALTH
from service.settings import is_loopback

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


@final
class KnownHosts:
    """ASGI middleware: a request by a name that is not ours is answered 421, a change by a page that is not ours 403.

    An API on loopback is known by loopback's names and by `others`; one on a network by the same, or by any name where
    there are no others. A page cannot come by loopback's names: its own name, wherever that leads, is in the Host. How
    the service is may be asked by any name: a probe comes by the address of its container.

    Args:
        app: answers the rest.
        host: where it listens.
        others: further names that it goes by, without ports.
    """

    def __init__(self, app: ASGIApp, *, host: str, others: Collection[str]) -> None:
        self._app = app
        self._known: frozenset[str] = frozenset()
        if others or is_loopback(host):
            self._known = LOOPBACK | {name.lower() for name in (host, *others)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._known and _name(host) not in self._known and scope["path"] not in HEALTH:
            status, reason = 421, f"this service does not go by the name {host!r} (SWEEPSERVE_ALLOWED_HOSTS)"
        elif scope["method"] not in SAFE and _is_foreign(headers, host):
            origin = headers.get(b"origin", b"another site").decode("latin-1")
            status, reason = 403, f"a page of {origin} may not {scope['method']} here: only {host}'s own may"
        else:
            await self._app(scope, receive, send)
            return
        await problem(status, reason, instance=scope["path"])(scope, receive, send)


def _is_foreign(headers: Mapping[bytes, bytes], host: str) -> bool:
    """Whether a browser says that a page of another origin asks. Programs say nothing of that kind."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:  # as by TLS and on loopback, also where a proxy has changed the Host
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    return origin is not None and origin.decode("latin-1").partition("://")[2].lower() != host.lower()


def _name(host: str) -> str:
    """The host of a Host header without its port: `[::1]:8000` is `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
