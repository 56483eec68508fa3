"""When a running sweep must end."""

from __future__ import annotations

import pytest

from service.adapters.memory import ManualClock, MemoryStore
from service.domain import Sweep, SweepState
from service.driver.drive import Superseded, ending


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> MemoryStore:
    store = MemoryStore()
    store.add_sweep(Sweep(id="s", name="n", spec={}, created_at=clock.now()))
    store.move_sweep("s", SweepState.RUNNING, at=clock.now())
    return store


def test_a_running_sweep_goes_on(store: MemoryStore, clock: ManualClock) -> None:
    """Without a request or a budget there is no end, however long it takes."""
    clock.advance(10**6)
    assert ending(store, store.sweep("s"), None, clock) is None


def test_a_request_to_stop_ends_it(store: MemoryStore, clock: ManualClock) -> None:
    """The store says stopping: the sweep ends stopped."""
    sweep = store.sweep("s")
    store.move_sweep("s", SweepState.STOPPING, at=clock.now())
    assert ending(store, sweep, None, clock) == (SweepState.STOPPED, "stopped on request")


def test_the_time_budget_ends_it(store: MemoryStore, clock: ManualClock) -> None:
    """The budget counts from when the sweep first ran; its end completes the sweep."""
    clock.advance(59)
    assert ending(store, store.sweep("s"), 60, clock) is None
    clock.advance(1)
    assert ending(store, store.sweep("s"), 60, clock) == (
        SweepState.COMPLETED,
        "its time budget of 0:01:00 is over",
    )


def test_a_sweep_that_was_ended_elsewhere_ends_here(store: MemoryStore, clock: ManualClock) -> None:
    """A driver whose sweep was given up must not go on with it."""
    sweep = store.sweep("s")
    store.move_sweep("s", SweepState.FAILED, at=clock.now())
    assert ending(store, sweep, None, clock) == (SweepState.FAILED, "the sweep became failed elsewhere")


def test_a_driver_that_has_a_successor_ends(store: MemoryStore, clock: ManualClock) -> None:
    """Even where the sweep shall stop: that is the successor's to do, so the state stays as it is."""
    store.count_attempt("s")
    sweep = store.sweep("s")
    assert ending(store, sweep, None, clock) is None
    store.count_attempt("s")
    store.move_sweep("s", SweepState.STOPPING, at=clock.now())
    with pytest.raises(Superseded, match="driver 2 has the sweep; this is driver 1"):
        ending(store, sweep, None, clock)
