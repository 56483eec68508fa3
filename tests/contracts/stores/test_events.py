"""Events: numbered without gaps, read in pages."""

from __future__ import annotations

import threading

from service.domain import SweepState, Trial
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, measure, together


def test_events_are_read_in_pages(store: Store) -> None:
    """Above a number, in order, so many at most."""
    sweep = add_sweep(store)
    for done in range(1, 5):
        store.add_progress(sweep.id, what="images", done=done, total=4, at=NOW)
    assert [event.number for event in store.events(sweep.id)] == [1, 2, 3, 4, 5]
    assert [event.number for event in store.events(sweep.id, after=1, limit=2)] == [2, 3]
    assert store.events(sweep.id, after=5) == []
    assert store.events(sweep.id, after=4)[0].data == {"what": "images", "done": 4, "total": 4}


def test_what_a_sweep_waits_for_is_its_reason(store: Store) -> None:
    """Until it goes on or is moved; how a sweep ended stays as it was told."""
    sweep = add_sweep(store)
    reasons = []
    for reason in ("no room", "", "no room"):
        store.add_wait(sweep.id, reason=reason, at=NOW)
        reasons.append(store.sweep(sweep.id).reason)
    reasons.append(store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW).reason)
    assert reasons == ["no room", "", "no room", ""]
    store.move_sweep(sweep.id, SweepState.FAILED, at=NOW, reason="it broke")
    store.add_wait(sweep.id, reason="", at=NOW)
    assert store.sweep(sweep.id).reason == "it broke"
    assert [event.data["reason"] for event in store.events(sweep.id) if event.kind == "wait"] == [*reasons[:3], ""]


def test_events_of_many_threads_are_numbered_without_gaps(store: Store) -> None:
    """And each number is readable before any higher one is, so that a reader who follows the numbers misses none."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(4)]
    writers = threading.Event()
    followed: list[int] = []

    def write(trial: Trial) -> None:
        for step in range(1, 16):
            store.add_measurement(measure(trial, step))
            store.add_progress(sweep.id, what=trial.id, done=step, total=15, at=NOW)

    def follow() -> None:
        ended = False
        while not ended:
            ended = writers.is_set()
            followed.extend(event.number for event in store.events(sweep.id, after=len(followed)))

    reader = threading.Thread(target=follow)
    reader.start()
    together(*(lambda trial=trial: write(trial) for trial in trials))
    writers.set()
    reader.join()
    assert followed == list(range(1, 1 + 1 + 4 + 4 * 15 * 2))
    assert store.sweep(sweep.id).last_event == followed[-1]


def test_the_tracker_cursor_never_goes_back(store: Store) -> None:
    """A sweep is untracked until the cursor reaches its newest event; oldest sweeps come first."""
    newer, older = add_sweep(store, "newer", age=1), add_sweep(store, "older", age=2)
    store.add_progress(older.id, what="images", done=1, total=1, at=NOW)
    assert [sweep.id for sweep in store.untracked()] == ["older", "newer"]
    store.set_tracked(older.id, 1)
    assert [sweep.id for sweep in store.untracked()] == ["older", "newer"]
    store.set_tracked(older.id, 2)
    store.set_tracked(older.id, 1)
    assert store.sweep(older.id).tracked == 2
    assert [sweep.id for sweep in store.untracked()] == [newer.id]
