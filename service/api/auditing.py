"""Keeps who changed what."""

from __future__ import annotations

import logging
from typing import final

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access, Deed
from service.access import Scope as KeyScope
from service.api.scopes import SAFE, scopes_for
from service.ports import Clock

logger = logging.getLogger(__name__)


@final
class Auditing:
    """ASGI middleware: a request that changed something is recorded before it is answered.

    Recorded is what succeeded and was not merely looked at or predicted. The key is the `Guard`'s, the trace id that of
    `Observing`. What cannot be recorded is logged: it has happened already.
    """

    def __init__(self, app: ASGIApp, *, access: Access, clock: Clock) -> None:
        self._app, self._access, self._clock = app, access, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http" or scope["method"] in SAFE or not _changes(scope):
            await self._app(scope, receive, send)
            return

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                await anyio.to_thread.run_sync(self._record, self._deed(scope, Headers(raw=message["headers"])))
            await send(message)

        await self._app(scope, receive, recorded)

    def _deed(self, scope: Scope, headers: Headers) -> Deed:
        state = scope.get("state", {})
        key = state.get("key")
        return Deed(
            at=self._clock.now(),
            actor=f"{key.id} ({key.name})" if key is not None else "anonymous",
            action=str(getattr(scope.get("route"), "name", scope["method"])),
            subject=headers.get("location", scope["path"]),
            trace_id=state.get("trace_id", ""),
        )

    def _record(self, deed: Deed) -> None:
        try:
            self._access.record(deed)
        except Exception:
            logger.exception("not recorded: %s", deed)


def _changes(scope: Scope) -> bool:
    needed = scopes_for(scope["method"], scope["path"])
    return needed is not None and needed.isdisjoint({KeyScope.READ, KeyScope.PREDICT})
