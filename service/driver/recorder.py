"""Writes to the store from a thread of its own, so that the training never waits for a database or hears its errors."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import final

from service.errors import Unavailable
from service.ports import Clock, Store

logger = logging.getLogger(__name__)

Write = Callable[[Store], object]
PAUSE_SECONDS = 1.0
"""Between attempts while the store does not answer."""


@final
class Recorder:
    """Carries out writes in the order in which they were put, each until the store has it.

    A store that does not answer is asked again for as long as it takes. Any other error is logged and that one write
    is given up: it would fail again, and what comes after it must not wait for ever. `lost` tells of it afterwards.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._given_up: list[Exception] = []
        self._writes: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        """Hands over a write and returns at once."""
        self._writes.put(write)

    def close(self) -> None:
        """Returns when everything that was put is in the store; nothing may be put afterwards."""
        self._writes.put(None)
        self._thread.join()

    @property
    def lost(self) -> str:
        """What the store refused, for people; empty: nothing."""
        if not self._given_up:
            return ""
        count, first = len(self._given_up), self._given_up[0]
        many = f"{count} writes, the first one" if count > 1 else "a write"
        return f"the store refused {many} with {type(first).__name__}: {first}; the log has all of it"

    def _work(self) -> None:
        while (write := self._writes.get()) is not None:
            self._persist(write)

    def _persist(self, write: Write) -> None:
        waiting = False
        while True:
            try:
                write(self._store)
            except Unavailable as error:
                if not waiting:
                    logger.warning("the store does not answer, trying until it does: %s", error)
                waiting = True
                self._clock.sleep(PAUSE_SECONDS)
            except Exception as error:
                logger.exception("a write was given up")
                self._given_up.append(error)
                return
            else:
                if waiting:
                    logger.info("the store answers again")
                return
