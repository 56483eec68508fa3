"""A tracker that collects what it is told, for tests."""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

from collections.abc import Sequence

from service.domain import Event, Sweep
from service.errors import Unavailable


class MemoryTracker:
    """`ports.Tracker` that collects the events, each once; unavailable while `down`, or for the sweeps in `refused`."""

    def __init__(self) -> None:
        self.down = False
        self.refused: set[str] = set()
        self.calls = 0
        self._shown: dict[str, dict[int, Event]] = {}

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        self.calls += 1
        if self.down or sweep.id in self.refused:
            raise Unavailable("the tracker does not answer")
        for event in events:
            self._shown.setdefault(sweep.id, {}).setdefault(event.number, event)

    def forget(self, sweep: Sweep) -> None:
        if self.down or sweep.id in self.refused:
            raise Unavailable("the tracker does not answer")
        self._shown.pop(sweep.id, None)

    def url(self, sweep: Sweep) -> str | None:
        return f"memory://{sweep.id}" if sweep.id in self._shown else None

    def shown(self, sweep_id: str) -> list[Event]:
        """The sweep's events in the order in which they first came."""
        return list(self._shown.get(sweep_id, {}).values())
