"""No request body grows over the limit, whether it says its length beforehand or not, nor all of them together."""

from __future__ import annotations

from collections import Counter
from typing import final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.headers import header
from service.api.problems import service_problem
from service.errors import ServiceError, TooLarge, TooManyRequests

SMALL = 2**16
"""Bytes up to which a body is not counted among those that are held: it comes at once, and what waits is bounded."""
AT_ONCE, AT_ONCE_A_KEY = 16, 8
"""So many times `max_bytes` all bodies that are held may have together, and those of one key."""


@final
class BodyLimit:
    """ASGI middleware: a larger body is answered 413, at once by its Content-Length, else as soon as it is over.

    A body is held until its request has been answered. What no memory was put by for is answered 429; a body that is
    the only one goes through in any case, since a key's own limit may be larger. Belongs to one event loop.

    Args:
        app: answers the rest.
        max_bytes: the limit, where the request's API key (`Guard`) has none of its own.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held, self._held_of_key = 0, Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key = scope.get("state", {}).get("key")
        limit = (key.max_body_bytes if key is not None else None) or self._max_bytes
        length = header(scope, b"content-length")
        if length.isdecimal() and int(length) > limit:
            await _refuse(_too_large(limit), scope, receive, send)
            return
        owner = key.id if key is not None else ""
        read, held, started = 0, 0, False
        refusal: ServiceError | None = None

        async def counted() -> Message:
            nonlocal read, held, refusal
            if refusal is not None:
                raise refusal
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    refusal = _too_large(limit)
                    raise refusal
                if read > SMALL:
                    if not self._has_room(owner, read, held):
                        refusal = TooManyRequests("too many large bodies are being sent at once")
                        raise refusal
                    self._hold(owner, read - held)
                    held = read
            return message

        async def unless_refused(message: Message) -> None:
            # Readers of forms and JSON turn the errors above into answers of their own, which would not say 413 or 429.
            nonlocal started
            started = started or refusal is None
            if started:
                await send(message)

        try:
            await self._app(scope, counted, unless_refused)
        except ServiceError as error:
            if started or error is not refusal:
                raise
        finally:
            if held:
                self._hold(owner, -held)
        if refusal is not None and not started:
            await _refuse(refusal, scope, receive, send)

    def _has_room(self, owner: str, size: int, held: int) -> bool:
        """For a body that has come to this size, beside the others."""
        others, of_key = self._held - held, self._held_of_key[owner] - held
        return (not others or others + size <= AT_ONCE * self._max_bytes) and (
            not of_key or of_key + size <= AT_ONCE_A_KEY * self._max_bytes
        )

    def _hold(self, owner: str, size: int) -> None:
        self._held += size
        self._held_of_key[owner] += size
        if not self._held_of_key[owner]:
            del self._held_of_key[owner]


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"need a body of at most {limit} bytes (SWEEPSERVE_MAX_BODY_BYTES)")


async def _refuse(refusal: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    response = service_problem(refusal, instance=scope["path"])
    response.headers["Connection"] = "close"  # what is still being sent is not read
    await response(scope, receive, send)
