"""A driver over a database of another version: one that was launched before the service was upgraded, or after."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Protocol

from service.driver.recorder import PAUSE_SECONDS
from service.errors import Unavailable
from service.ports import Clock

logger = logging.getLogger(__name__)


class Versioned(Protocol):
    """A store whose database may be of another version than this code: `SqlStore`."""

    def mismatch(self) -> str:
        """How it differs, and what to do about it; empty: it does not."""

    def add_wait(self, sweep_id: str, *, reason: str, at: datetime) -> None:
        """Says of a sweep why it waits; empty: it goes on."""


def await_version(sweep_id: str, *, store: Versioned, clock: Clock) -> None:
    """Returns once the database is of this code's version; meanwhile the log and the sweep say what to do.

    Raises:
        NotFound: there is no such sweep.
    """
    said = failed = ""
    while True:
        try:
            why = store.mismatch()
            if why != said:
                logger.warning("%s", why or "the database is of this version now: going on")
                store.add_wait(sweep_id, reason=why, at=clock.now())
                said = why
            if not why:
                return
        except Unavailable as error:
            if str(error) != failed:
                logger.warning("the store does not answer, trying again: %s", error)
            failed = str(error)
        clock.sleep(PAUSE_SECONDS)
