"""The recorder: every write reaches the store, in order, whatever the store does meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.domain import Sweep, Trial, TrialState
from service.driver.recorder import PAUSE_SECONDS, Recorder
from service.errors import Unavailable
from service.ports import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make_store() -> MemoryStore:
    """A store with one sweep of one trial."""
    store = MemoryStore()
    store.add_sweep(Sweep(id="s", name="n", spec={}, created_at=NOW))
    store.add_trial(Trial(id="s-0000", sweep_id="s", number=0, point={}, created_at=NOW))
    return store


def test_close_waits_for_everything_that_was_put() -> None:
    """After `close` all writes are in the store, in the order in which they were put."""
    store = make_store()
    recorder = Recorder(store, ManualClock())
    for done in range(50):
        recorder.put(lambda s, done=done: s.add_progress("s", what="data", done=done, total=50, at=NOW))
    recorder.close()
    assert [event.data["done"] for event in store.events("s") if event.kind == "progress"] == list(range(50))


def test_a_silent_store_is_asked_until_it_answers() -> None:
    """A write is repeated while the store is unavailable, with a pause, and what follows waits its turn."""
    store, clock = make_store(), ManualClock()
    started, refusals = clock.now(), [3]

    def flaky(s: Store) -> None:
        if refusals[0]:
            refusals[0] -= 1
            raise Unavailable("the database does not answer")
        s.add_progress("s", what="first", done=1, total=1, at=NOW)

    recorder = Recorder(store, clock)
    recorder.put(flaky)
    recorder.put(lambda s: s.add_progress("s", what="second", done=1, total=1, at=NOW))
    recorder.close()
    assert [event.data["what"] for event in store.events("s") if event.kind == "progress"] == ["first", "second"]
    assert (clock.now() - started).total_seconds() == 3 * PAUSE_SECONDS


def test_a_write_that_can_never_succeed_is_given_up() -> None:
    """An illegal move is logged and dropped; the writes after it are made."""
    store = make_store()
    recorder = Recorder(store, ManualClock())
    recorder.put(lambda s: s.move_trial("s-0000", TrialState.PRUNED, at=NOW))
    recorder.put(lambda s: s.move_trial("s-0000", TrialState.STOPPED, at=NOW))
    recorder.put(lambda s: s.add_progress("s", what="after", done=1, total=1, at=NOW))
    recorder.close()
    assert store.trial("s-0000").state is TrialState.PRUNED
    assert store.events("s")[-1].data["what"] == "after"
    why = "IllegalMove: trial s-0000 is pruned and cannot become stopped"
    assert recorder.lost == f"the store refused a write with {why}; the log has all of it"
