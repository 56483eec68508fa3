"""What keeps a sweep's trials from beginning, as it is told to watchers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import final

from service.domain import Sweep
from service.driver.recorder import Write
from service.ports import Clock

logger = logging.getLogger(__name__)


@final
class Waits:
    """Tells what trials wait for when that begins, and that they go on when it ends.

    Args:
        sweep: whose trials; what its last driver said of them and had no time to take back is taken back.
        put: takes what the store shall know.
        clock: gives what is told its time.
    """

    def __init__(self, sweep: Sweep, *, put: Callable[[Write], None], clock: Clock) -> None:
        self._sweep_id, self._put, self._clock = sweep.id, put, clock
        self._told = sweep.reason
        self._reasons: dict[str, str] = {}

    def say(self, what: str, reason: str) -> None:
        """Trials wait for this, and why; empty: not for this. The reason that was given first stays."""
        if reason:
            self._reasons.setdefault(what, reason)
        else:
            self._reasons.pop(what, None)
        said = "; ".join(self._reasons.values())
        if said != self._told:
            self._told, at = said, self._clock.now()
            self._put(lambda store: store.add_wait(self._sweep_id, reason=said, at=at))
            logger.info("%s", said or "trials begin again")
