"""No request body grows over the limit, whether it says its length beforehand or not."""

from __future__ import annotations

from typing import final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.headers import header
from service.api.problems import problem
from service.errors import TooLarge


@final
class BodyLimit:
    """ASGI middleware: a larger body is answered 413, at once by its Content-Length, else as soon as it is over.

    Args:
        app: answers the rest.
        max_bytes: the limit, where the request's API key (`Guard`) has none of its own.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key = scope.get("state", {}).get("key")
        limit = (key.max_body_bytes if key is not None else None) or self._max_bytes
        length = header(scope, b"content-length")
        if length.isdecimal() and int(length) > limit:
            await self._refuse(limit, scope, receive, send)
            return
        read, over, started = 0, False, False

        async def counted() -> Message:
            nonlocal read, over
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    over = True
                    raise TooLarge(f"need at most {limit} bytes")
            return message

        async def unless_over(message: Message) -> None:
            # Readers of forms and JSON turn the error above into answers of their own, which would not say 413.
            nonlocal started
            started = started or not over
            if started:
                await send(message)

        try:
            await self._app(scope, counted, unless_over)
        except TooLarge:
            if started:
                raise
        if over and not started:
            await self._refuse(limit, scope, receive, send)

    async def _refuse(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(
            413,
            f"need a body of at most {limit} bytes (SWEEPSERVE_MAX_BODY_BYTES)",
            instance=scope["path"],
            headers={"Connection": "close"},  # what is still being sent is not read
        )
        await response(scope, receive, send)
