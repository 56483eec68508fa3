"""The real clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import final

from service.ports import Clock


@final
class SystemClock:
    """The machine's time, with every correction that it gets."""

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Returns after that many seconds."""
        time.sleep(seconds)


def since_boot() -> float:
    """Seconds that only go forward, those in which the machine slept included where the system counts them (Linux)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


@final
class SteadyClock:
    """The machine's time when this process began, counted on from there: what lies between two times did pass.

    For a process that budgets time. One that lives for months should follow corrections, and have a `SystemClock`.

    Args:
        wall: the machine's time, which may jump; asked once.
        watch: seconds that only go forward.
    """

    def __init__(self, *, wall: Callable[[], datetime] | None = None, watch: Callable[[], float] = since_boot) -> None:
        self._watch, self._begun, self._began = watch, watch(), (wall or SystemClock().now)()

    def now(self) -> datetime:
        """The time in UTC."""
        return self._began + timedelta(seconds=self._watch() - self._begun)

    def sleep(self, seconds: float) -> None:
        """Returns after that many seconds."""
        time.sleep(seconds)


@final
class LaterClock:
    """Another clock, put forward if it is behind a time: what it gives comes after that time.

    For a process that goes on with what others began, by clocks that may have been ahead of its own.
    """

    def __init__(self, clock: Clock, time: datetime) -> None:
        self._clock, self._by = clock, max(timedelta(), time - clock.now())

    def now(self) -> datetime:
        """The time in UTC."""
        return self._clock.now() + self._by

    def sleep(self, seconds: float) -> None:
        """Returns after that many seconds."""
        self._clock.sleep(seconds)
