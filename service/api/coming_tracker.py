"""A tracker that nobody waits for: neither while it is made, nor while it looks something up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import final

from service.api.background import in_background
from service.domain import Event, Sweep
from service.ports import Tracker


@final
class ComingTracker:
    """`ports.Tracker` around another one, which is made in the background: importing MLflow takes seconds.

    Args:
        make: makes the other one.
        patience: seconds that `url` waits for an answer; MLflow may hang for much longer.
    """

    def __init__(self, make: Callable[[], Tracker], *, patience: float = 0.3) -> None:
        self._make = make
        self._made = in_background("tracker's maker", make)
        self._patience = patience
        self._urls: dict[str, Future[str | None]] = {}
        self._lock = threading.Lock()

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        """Shows these events, once the tracker is there. Raises what making it raised, and Unavailable."""
        self._tracker().track(sweep, events)

    def forget(self, sweep: Sweep) -> None:
        """Shows the sweep no more. Raises what making it raised, and Unavailable."""
        self._tracker().forget(sweep)
        with self._lock:
            self._urls.pop(sweep.id, None)

    def _tracker(self) -> Tracker:
        """Waits for it; one that could not be made is made again when it is next asked for."""
        with self._lock:
            made = self._made
        try:
            return made.result()
        except Exception:
            with self._lock:
                if self._made is made:
                    self._made = in_background("tracker's maker", self._make)
            raise

    def url(self, sweep: Sweep) -> str | None:
        """Where a person can look at the sweep; None also where that cannot be told at once."""
        if not sweep.tracked:
            return None
        with self._lock:
            asked = self._urls.get(sweep.id)
            if asked is None or (asked.done() and _result(asked, 0) is None):
                asked = in_background("tracker's url", lambda: self._made.result().url(sweep))
                self._urls[sweep.id] = asked
        return _result(asked, self._patience)


def _result(asked: Future[str | None], seconds: float) -> str | None:
    try:
        return asked.result(seconds)
    except Exception:  # noqa: BLE001 - too late, or the tracker is out of order: a sweep is shown without its address
        return None
