"""The tracker catches up with the store, whatever happens to it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.adapters.memory_tracker import MemoryTracker
from service.domain import Event, Sweep
from service.errors import Unavailable
from service.tracking import drain


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def tracker() -> MemoryTracker:
    """A tracker that has seen nothing."""
    return MemoryTracker()


def add_sweep(store: MemoryStore, clock: ManualClock, sweep_id: str, events: int) -> Sweep:
    """A sweep with so many events."""
    clock.advance(1)
    store.add_sweep(Sweep(id=sweep_id, name="digits", spec={}, created_at=clock.now()))
    for done in range(1, events):
        store.add_progress(sweep_id, what="images", done=done, total=events - 1, at=clock.now())
    return store.sweep(sweep_id)


def numbers(tracker: MemoryTracker, sweep: Sweep) -> list[int]:
    """The numbers of the events shown, in the order in which they came."""
    return [event.number for event in tracker.shown(sweep.id)]


def test_every_event_is_sent_once_and_in_order(store: MemoryStore, clock: ManualClock, tracker: MemoryTracker) -> None:
    """In batches; a second pass has nothing left to send."""
    first, second = add_sweep(store, clock, "first", 7), add_sweep(store, clock, "second", 2)
    assert drain(store, tracker, batch=3) == 9
    assert numbers(tracker, first) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(tracker, second) == [1, 2]
    assert tracker.calls == 4
    assert store.untracked() == []
    assert drain(store, tracker) == 0
    assert tracker.calls == 4


def test_nothing_is_lost_while_the_tracker_is_down(
    store: MemoryStore, clock: ManualClock, tracker: MemoryTracker
) -> None:
    """The pass says so; a later one sends what came meanwhile too."""
    sweep = add_sweep(store, clock, "first", 2)
    add_sweep(store, clock, "second", 1)
    tracker.down = True
    with pytest.raises(Unavailable, match=r"^the tracker does not answer$"):
        drain(store, tracker)
    store.add_progress(sweep.id, what="images", done=1, total=1, at=clock.now())
    tracker.down = False
    assert drain(store, tracker) == 4
    assert numbers(tracker, sweep) == [1, 2, 3]


def test_one_sweep_does_not_hold_up_the_others(store: MemoryStore, clock: ManualClock, tracker: MemoryTracker) -> None:
    """The oldest one is refused, the next is shown."""
    first, second = add_sweep(store, clock, "first", 2), add_sweep(store, clock, "second", 2)
    tracker.refused = {first.id}
    with pytest.raises(Unavailable):
        drain(store, tracker)
    assert numbers(tracker, second) == [1, 2]
    assert [sweep.id for sweep in store.untracked()] == [first.id]


class Fragile(MemoryTracker):
    """A tracker that fails at one event, with an error that it should not raise."""

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        """Fails at event 3 of the first sweep."""
        if sweep.id == "first" and any(event.number == 3 for event in events):
            raise KeyError("no such run")
        super().track(sweep, events)


def test_an_unexpected_error_holds_up_only_its_own_sweep(store: MemoryStore, clock: ManualClock) -> None:
    """What was sent before it stays sent, and the pass names it."""
    tracker = Fragile()
    first, second = add_sweep(store, clock, "first", 4), add_sweep(store, clock, "second", 1)
    with pytest.raises(Unavailable, match="KeyError: 'no such run'"):
        drain(store, tracker, batch=2)
    assert numbers(tracker, first) == [1, 2]
    assert store.sweep(first.id).tracked == 2
    assert numbers(tracker, second) == [1]


class Dying(MemoryStore):
    """A store whose process dies just after the tracker took the first batch."""

    def set_tracked(self, sweep_id: str, number: int) -> None:
        """Never gets there."""
        raise SystemExit


def test_a_crash_repeats_events_and_loses_none(clock: ManualClock, tracker: MemoryTracker) -> None:
    """The cursor moves only after the tracker has the events."""
    store = Dying()
    sweep = add_sweep(store, clock, "first", 3)
    with pytest.raises(SystemExit):
        drain(store, tracker)
    assert store.sweep(sweep.id).tracked == 0
    assert numbers(tracker, sweep) == [1, 2, 3]
