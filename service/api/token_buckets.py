"""Rate limits by token bucket."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import final

MAX_BUCKETS = 10_000
"""More are not remembered at a time; those that have been full for longest are forgotten, which changes nothing."""


@final
class TokenBuckets:
    """A bucket a name: it holds a minute's requests, each takes one, and it fills evenly.

    Args:
        now: the time. A clock that jumps back fills nothing, and counts on from there.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._buckets: dict[str, tuple[float, datetime]] = {}

    def take(self, name: str, per_minute: int) -> float:
        """Takes a token; 0, or where there is none the seconds until there is one."""
        tokens, now = self._tokens(name, per_minute)
        if tokens < 1:
            return (1 - tokens) * 60 / per_minute
        self._buckets.pop(name, None)
        self._buckets[name] = (tokens - 1, now)  # at the end: the first in the dictionary was used longest ago
        while len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0

    def wait(self, name: str, per_minute: int) -> float:
        """The same, without taking it."""
        tokens, _ = self._tokens(name, per_minute)
        return 0.0 if tokens >= 1 else (1 - tokens) * 60 / per_minute

    def _tokens(self, name: str, per_minute: int) -> tuple[float, datetime]:
        now = self._now()
        tokens, then = self._buckets.get(name, (float(per_minute), now))
        if now < then:
            self._buckets[name] = tokens, now
        passed = max(0.0, (now - then).total_seconds())
        return min(float(per_minute), tokens + passed * per_minute / 60), now
