"""The queue: in which order sweeps are launched, and how many come first."""

from __future__ import annotations

from datetime import timedelta

from service.domain import SweepState
from service.port_values import Ahead
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep


def spec(priority: int) -> dict[str, object]:
    """Of a sweep with that priority."""
    return {"family": "narrow_resnet", "resources": {"priority": priority}}


def test_the_queue_is_by_priority_then_by_age(store: Store) -> None:
    """A later sweep of more priority goes first; equals of the same moment by id; a few are asked for."""
    add_sweep(store, "late")
    add_sweep(store, "early", age=2)
    add_sweep(store, "same2", age=1)
    add_sweep(store, "same1", age=1)
    add_sweep(store, "urgent", age=-1, spec=spec(5))
    add_sweep(store, "idle", age=9, spec=spec(-5))
    order = ["urgent", "early", "same1", "same2", "late", "idle"]
    assert [sweep.id for sweep in store.queue(limit=9)] == order
    assert store.queue(limit=2) == [store.sweep("urgent"), store.sweep("early")]
    assert store.queue(limit=0) == []
    assert [store.ahead(one) for one in order] == [Ahead(driven=0, queued=number) for number in range(6)]


def test_what_is_not_queued_is_before_nobody(store: Store) -> None:
    """Driven sweeps are counted apart; paused and ended ones not at all; who is not queued has nobody before it."""
    moves = {
        "driven": [SweepState.STARTING],
        "ending": [SweepState.RUNNING, SweepState.STOPPING],
        "paused": [SweepState.PAUSED],
        "ended": [SweepState.STOPPED],
    }
    for sweep_id, states in moves.items():
        add_sweep(store, sweep_id, age=5)
        for state in states:
            store.move_sweep(sweep_id, state, at=NOW)
    add_sweep(store, "first", age=1)
    add_sweep(store, "second")
    assert [sweep.id for sweep in store.queue(limit=9)] == ["first", "second"]
    assert store.ahead("second") == Ahead(driven=2, queued=1)
    assert {store.ahead(one) for one in moves} == {Ahead(driven=2, queued=0)}


def test_a_changed_spec_changes_the_place(store: Store) -> None:
    """The priority is the spec's."""
    add_sweep(store, "first", age=1)
    add_sweep(store, "second")
    store.change_spec("second", spec(1), seen=store.sweep("second"), at=NOW)
    assert [sweep.id for sweep in store.queue(limit=9)] == ["second", "first"]
    assert store.ahead("first") == Ahead(driven=0, queued=1)


def test_a_sweep_waits_since_it_was_queued_last(store: Store) -> None:
    """Not since it was submitted: one that was extended a moment ago may be a month old."""
    assert store.census().queued_since is None
    extended = add_sweep(store, "extended", age=1000)
    store.move_sweep(extended.id, SweepState.PAUSED, at=NOW - timedelta(seconds=100))
    store.move_sweep(extended.id, SweepState.QUEUED, at=NOW - timedelta(seconds=1))
    assert store.census().queued_since == NOW - timedelta(seconds=1)
    waiting = add_sweep(store, "waiting", age=5)
    assert store.census().queued_since == waiting.created_at
