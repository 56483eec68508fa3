"""Which of several processes over one store acts: the one that holds the lease."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import final

from service.port_values import Lease
from service.ports import Store
from service.processes import is_dead, name_of_this

logger = logging.getLogger(__name__)

NAME = "background"
PATIENCE = 6.0
"""Seconds without a beat after which the holder is taken for dead, where its death cannot be seen."""
BELIEF = 4.0
"""Seconds after its last beat in which the holder acts: fewer, so that it stops before another one begins."""


@final
class Leader:
    """This process's claim to act for all. `renew` it each second; it leads while the store heard it lately.

    A lease has no time in it, only a beat that its holder raises. Who does not hold it takes it when the beat has
    stood still for `PATIENCE` by its own watch, so that clocks which differ or jump do no harm; or at once, when the
    holder is a process of this machine that has ended. A process that was halted in the middle of an act may still
    finish that act later: what it then writes is refused (`seen` of `Store.move_sweep`, `after` of
    `Store.count_attempt`).

    Args:
        store: keeps the lease.
        watch: seconds that only go forward.
    """

    def __init__(self, store: Store, *, watch: Callable[[], float] = time.monotonic) -> None:
        self._store, self._watch = store, watch
        self._name = f"{name_of_this()}:{secrets.token_hex(4)}"
        self._held: Lease | None = None
        self._believed_until = 0.0
        self._seen: Lease | None = None
        self._seen_since = 0.0
        self._asked = False
        self._lock = threading.Lock()

    @property
    def leads(self) -> bool:
        """This process may act now."""
        if not self._asked:
            self.renew()
        return self._held is not None and self._watch() < self._believed_until

    def renew(self) -> None:
        """Raises the beat, or takes the lease if it is free or its holder is dead. Raises Unavailable."""
        with self._lock:
            self._asked = True
            now = self._watch()
            lease = self._store.take_lease(NAME, holder=self._name, after=self._held or self._takeable(now))
            if lease is not None and lease.holder == self._name:
                if self._held is None:
                    logger.info("this process acts for all from now on")
                self._held, self._believed_until = lease, now + BELIEF
                return
            if self._held is not None:
                logger.warning("another process acts for all from now on")
            self._held = None
            if lease != self._seen:
                self._seen, self._seen_since = lease, now

    def alone(self, step: Callable[[], object]) -> Callable[[], None]:
        """The step, done only while this process leads."""

        def run() -> None:
            if self.leads:
                step()

        return run

    def resign(self) -> None:
        """Lets another process take the lease at once."""
        with self._lock:
            if self._held is not None:
                self._store.take_lease(NAME, holder="", after=self._held)
            self._held = None

    def _takeable(self, now: float) -> Lease | None:
        """The lease as it was seen last, if its holder gave it up or is dead; else None, which takes no lease."""
        if self._seen is None:
            return None
        free = not self._seen.holder or is_dead(self._seen.holder) or now - self._seen_since >= PATIENCE
        return self._seen if free else None
