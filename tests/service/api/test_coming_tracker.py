"""A tracker that is slow to come or slow to answer holds up nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.adapters.memory_tracker import MemoryTracker
from service.api.coming_tracker import ComingTracker
from service.domain import Event, Sweep
from service.errors import Unavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SWEEP = Sweep(id="aaaaaaaa", name="digits", spec={}, created_at=NOW, last_event=1, tracked=1)
EVENT = Event(sweep_id=SWEEP.id, number=1, at=NOW, kind="sweep", data={"state": "queued", "reason": ""})


class _Slow:
    """A tracker whose `url` answers when it may."""

    def __init__(self, may: threading.Event) -> None:
        self._may = may
        self.asked = 0

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        raise Unavailable("it hangs")

    def url(self, sweep: Sweep) -> str | None:
        self.asked += 1
        assert self._may.wait(10)
        return f"slow://{sweep.id}"


@pytest.fixture(name="may")
def _may() -> Iterator[threading.Event]:
    may = threading.Event()
    yield may
    may.set()


def test_events_are_shown_once_the_tracker_is_there() -> None:
    """Whoever shows events waits for it; the address follows."""
    memory = MemoryTracker()
    tracker = ComingTracker(lambda: memory, patience=10)
    tracker.track(SWEEP, [EVENT])
    assert memory.shown(SWEEP.id) == [EVENT]
    assert tracker.url(SWEEP) == f"memory://{SWEEP.id}"


def test_an_address_is_not_waited_for_while_the_tracker_is_made(may: threading.Event) -> None:
    """None at once; the address once there is a tracker."""
    memory = MemoryTracker()
    memory.track(SWEEP, [EVENT])

    def make() -> MemoryTracker:
        assert may.wait(10)
        return memory

    tracker = ComingTracker(make, patience=0.01)
    assert tracker.url(SWEEP) is None
    may.set()
    while (url := tracker.url(SWEEP)) is None:
        pass
    assert url == f"memory://{SWEEP.id}"


def test_a_tracker_that_hangs_is_asked_once(may: threading.Event) -> None:
    """Requests neither wait for it nor heap up behind it, and get the address when it comes."""
    slow = _Slow(may)
    tracker = ComingTracker(lambda: slow, patience=0.05)
    assert [tracker.url(SWEEP) for _ in range(3)] == [None] * 3
    assert slow.asked == 1
    may.set()
    while tracker.url(SWEEP) is None:
        pass
    assert (tracker.url(SWEEP), slow.asked) == (f"slow://{SWEEP.id}", 1)


def test_a_sweep_that_is_not_tracked_yet_has_no_address(may: threading.Event) -> None:
    """There is nothing to ask."""
    slow = _Slow(may)
    assert ComingTracker(lambda: slow).url(replace(SWEEP, tracked=0)) is None
    assert slow.asked == 0


def test_an_address_that_was_not_there_is_asked_for_again() -> None:
    """The sweep's page may come later."""
    memory = MemoryTracker()
    tracker = ComingTracker(lambda: memory, patience=10)
    assert tracker.url(SWEEP) is None
    tracker.track(SWEEP, [EVENT])
    assert tracker.url(SWEEP) == f"memory://{SWEEP.id}"


def test_a_tracker_that_cannot_be_made_fails_those_who_need_it() -> None:
    """Showing events fails with the reason, each time; sweeps are shown without an address."""

    def make() -> MemoryTracker:
        raise ImportError("no mlflow here")

    tracker = ComingTracker(make)
    for _ in range(2):
        with pytest.raises(ImportError, match="no mlflow here"):
            tracker.track(SWEEP, [EVENT])
        assert tracker.url(SWEEP) is None


def test_a_tracker_that_could_not_be_made_is_made_again() -> None:
    """What was the matter may be over: nobody need start the service again for it."""
    memory, tries = MemoryTracker(), []

    def make() -> MemoryTracker:
        tries.append(1)
        if len(tries) == 1:
            raise ImportError("cannot import name from a partially initialized module")
        return memory

    tracker = ComingTracker(make, patience=10)
    with pytest.raises(ImportError, match="partially initialized"):
        tracker.track(SWEEP, [EVENT])
    tracker.track(SWEEP, [EVENT])
    assert memory.shown(SWEEP.id) == [EVENT]
    assert len(tries) == 2
