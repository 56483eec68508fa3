"""Whether something that the service depends on answers, for whoever asks and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import final

from service.api.background import in_background
from service.errors import ServiceError
from service.ports import Clock

FRESH = timedelta(seconds=2)
"""How long what was seen is good for."""
PATIENCE = 2.0
"""Seconds that whoever asks waits for a part; a probe gives up after some of its own."""


@final
class Look:
    """A look at one part: one at a time, in a thread of its own, so that no other request waits where the part hangs.

    Args:
        name: of the part, and of the thread.
        ask: asks it something; a `ServiceError` says what is the matter.
        clock: tells how old the last look is.
        patience: see `PATIENCE`.
    """

    def __init__(self, name: str, ask: Callable[[], object], clock: Clock, *, patience: float = PATIENCE) -> None:
        self._name, self._ask, self._clock, self._patience = name, ask, clock, patience
        self._seen: Future[str] | None = None
        self._began: datetime = clock.now()

    async def trouble(self) -> str:
        """What is the matter with it, as it was seen two seconds ago at most; empty: nothing."""
        now = self._clock.now()
        if self._seen is None or (self._seen.done() and not timedelta(0) <= now - self._began < FRESH):
            self._seen, self._began = in_background(f"look at the {self._name}", self._look), now
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(asyncio.wrap_future(self._seen))  # others wait for it too
        except TimeoutError:
            return f"no answer within {self._patience:g} s"

    def _look(self) -> str:
        try:
            self._ask()
        except ServiceError as error:
            return str(error)
        return ""
