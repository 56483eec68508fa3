"""Who asks, whether they may, and not too often."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import final

import anyio.to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Access, Key, is_valid, key_id
from service.api.headers import header
from service.api.problems import service_problem
from service.api.scopes import scopes_for
from service.api.token_buckets import TokenBuckets
from service.errors import Forbidden, ServiceError, TooManyRequests, Unauthorized, Unavailable
from service.ports import Clock
from service.settings import Settings

REMEMBERED = timedelta(seconds=5)
"""How long a key is taken as it was read last: a revoked one may be good for so long."""
BAD_KEYS_A_MINUTE = 60
"""By client address. No secret can be guessed at any rate; each attempt asks the database."""

logger = logging.getLogger(__name__)


@final
class Guard:
    """ASGI middleware: finds the request's key, and refuses what that may not do (401, 403) or does too often (429).

    The key is then in `scope["state"]["key"]`, None where the request has none and needs none. Limits hold in this
    process; each of several has its own.
    """

    def __init__(self, app: ASGIApp, *, access: Access, clock: Clock, settings: Settings) -> None:
        self._app = app
        self._access, self._clock = access, clock
        self._keys_required, self._rate_limit = settings.keys_required, settings.rate_limit
        self._buckets = TokenBuckets(clock.now)
        self._known: dict[str, tuple[Key, datetime]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            key = await self._admit(scope)
        except ServiceError as error:
            await service_problem(error, instance=scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = key
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Key | None:
        needed = scopes_for(scope["method"], scope["path"])
        if needed is None:
            return None
        kind, _, text = header(scope, b"authorization").partition(" ")
        if kind.lower() != "bearer":  # another kind is for a proxy before us
            if self._keys_required:
                raise Unauthorized("need an API key, as Authorization: Bearer KEY (SWEEPSERVE_API_KEY for sweepserve)")
            return None
        key = await self._key(text.strip(), address=scope["client"][0] if scope.get("client") else "")
        if not key.allows(needed):
            raise Forbidden(
                f"need a key with the scope {' or '.join(sorted(needed))}, {key.id} has {', '.join(sorted(key.scopes))}"
            )
        wait = self._buckets.take(f"key {key.id}", key.rate or self._rate_limit)
        if wait > 0:
            raise _too_many(wait)
        return key

    async def _key(self, text: str, *, address: str) -> Key:
        wait = self._buckets.wait(f"address {address}", BAD_KEYS_A_MINUTE)
        named, now = key_id(text), self._clock.now()
        key, until = self._known.get(named, (None, now))
        if key is None or not now < until <= now + REMEMBERED:
            # Whom it knows it lets ask again, whatever others of the address do.
            if wait > 0 and not is_valid(text, key):
                raise _too_many(wait)
            key = await self._look_up(named) if named else None
            if key is not None:
                self._known[key.id] = key, now + REMEMBERED
        if not is_valid(text, key):
            self._buckets.take(f"address {address}", BAD_KEYS_A_MINUTE)
            raise Unauthorized("the API key is not valid")
        assert key is not None
        return key

    async def _look_up(self, named: str) -> Key | None:
        try:
            return await anyio.to_thread.run_sync(self._access.key, named)
        except Unavailable as error:  # whose words name the database's host and user; who asks is a stranger so far
            logger.warning("no API key can be looked up: %s", error)
            raise Unavailable("API keys cannot be looked up at present") from error


def _too_many(wait: float) -> TooManyRequests:
    return TooManyRequests("too many requests in a minute; Retry-After says when the next one may come", seconds=wait)
