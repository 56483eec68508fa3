"""Sweeps: kept, listed, moved, counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.domain import Sweep, SweepState, TrialState, as_data
from service.errors import Conflict, IllegalMove, NotFound
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, claim, kinds, measure, offer, together


def test_a_sweep_comes_back_as_it_was(store: Store) -> None:
    """Every field survives, times in UTC included."""
    sweep = add_sweep(store, spec={"search": {"trials": 3}, "list": [1, 2.5, None, True, "ü"]})
    assert store.sweep(sweep.id) == replace(sweep, last_event=1)
    assert store.sweep(sweep.id).created_at.tzinfo is UTC


def test_a_time_in_another_zone_is_the_same_time(store: Store) -> None:
    """What is written with another offset compares equal when read."""
    there = datetime.fromisoformat("2026-03-01T14:30:00+05:30")
    store.add_sweep(Sweep(id="zone2222", name="zone", spec={}, created_at=there))
    assert store.sweep("zone2222").created_at == there


def test_a_taken_id_is_a_conflict(store: Store) -> None:
    """Adding a sweep twice changes nothing."""
    sweep = add_sweep(store)
    with pytest.raises(Conflict, match="aaaa2222"):
        add_sweep(store, name="other")
    assert store.sweep(sweep.id).name == "digits"
    assert kinds(store, sweep) == ["sweep"]


def test_sweeps_are_listed_newest_first_and_by_pages(store: Store) -> None:
    """Sweeps of the same moment are told apart by id, so that no page repeats or skips one."""
    for number in range(5):
        add_sweep(store, f"sweep{number}", age=number // 2)
    sweeps = store.sweeps()
    everything = [sweep.id for sweep in sweeps]
    places = [(sweep.created_at, sweep.id) for sweep in sweeps]
    assert everything == ["sweep1", "sweep0", "sweep3", "sweep2", "sweep4"]
    assert [sweep.id for sweep in store.sweeps(limit=2)] == everything[:2]
    assert [sweep.id for sweep in store.sweeps(limit=2, before=places[1])] == everything[2:4]
    store.delete_sweep(everything[3])
    add_sweep(store, "new", age=-1)
    assert [sweep.id for sweep in store.sweeps(limit=2, before=places[3])] == everything[4:]
    assert store.sweeps(before=places[4]) == []


def test_sweeps_are_found_by_state_and_name(store: Store) -> None:
    """Both filters hold at once."""
    add_sweep(store, "one", age=3)
    add_sweep(store, "two", age=2, name="other")
    add_sweep(store, "three", age=1)
    store.move_sweep("one", SweepState.RUNNING, at=NOW)
    assert [sweep.id for sweep in store.sweeps(states=[SweepState.QUEUED])] == ["three", "two"]
    assert [sweep.id for sweep in store.sweeps(states=[SweepState.QUEUED, SweepState.RUNNING])] == [
        "three",
        "two",
        "one",
    ]
    assert [sweep.id for sweep in store.sweeps(states=[SweepState.QUEUED], name="digits")] == ["three"]
    add_sweep(store, "four", spec={"family": "pose_net"})
    assert [sweep.id for sweep in store.sweeps(family="pose_net")] == ["four"]
    assert [sweep.id for sweep in store.sweeps(family="narrow_resnet", name="other")] == ["two"]


def test_a_sweep_moves_by_the_table_of_moves(store: Store) -> None:
    """A move keeps its time and reason and tells watchers; an illegal one changes nothing."""
    sweep = add_sweep(store)
    later = NOW + timedelta(seconds=5)
    running = store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW)
    failed = store.move_sweep(sweep.id, SweepState.FAILED, at=later, reason="out of memory\0")
    assert (running.state, running.started_at, running.moved_at) == (SweepState.RUNNING, NOW, NOW)
    assert (failed.state, failed.finished_at, failed.moved_at) == (SweepState.FAILED, later, later)
    assert failed == store.sweep(sweep.id)
    with pytest.raises(IllegalMove, match="is failed and cannot become running"):
        store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW)
    assert [(event.number, event.at, event.data) for event in store.events(sweep.id)] == [
        (1, NOW, {"state": "queued", "reason": ""}),
        (2, NOW, {"state": "running", "reason": ""}),
        (3, later, {"state": "failed", "reason": "out of memory"}),
    ]


def test_of_two_movers_one_wins(store: Store) -> None:
    """Two threads that move a sweep out of the same state: one does, the other hears that it came too late."""
    for round_ in range(10):
        sweep = add_sweep(store, f"race{round_}")
        outcomes = together(
            lambda sweep=sweep: store.move_sweep(sweep.id, SweepState.STOPPED, at=NOW),
            lambda sweep=sweep: store.move_sweep(sweep.id, SweepState.FAILED, at=NOW),
        )
        (winner,) = (outcome for outcome in outcomes if isinstance(outcome, Sweep))
        assert sum(isinstance(outcome, IllegalMove) for outcome in outcomes) == 1
        assert store.sweep(sweep.id) == winner
        assert kinds(store, sweep) == ["sweep", "sweep"]


def test_attempts_are_counted_once_each(store: Store) -> None:
    """Who counts on from an attempt that another has counted on from hears of it."""
    sweep = add_sweep(store)
    assert store.count_attempt(sweep.id) == 1
    assert store.count_attempt(sweep.id, after=1) == 2
    with pytest.raises(Conflict, match="has had 2 attempts, not 1"):
        store.count_attempt(sweep.id, after=1)
    outcomes = together(*[lambda: store.count_attempt(sweep.id, after=2)] * 4)
    assert outcomes.count(3) == 1
    assert store.sweep(sweep.id).attempt == 3


def test_a_move_is_refused_to_who_saw_another_driver_or_spec(store: Store) -> None:
    """Nothing is changed by it; who saw the sweep as it is may move it."""
    sweep = add_sweep(store)
    store.count_attempt(sweep.id)
    with pytest.raises(Conflict, match="another driver"):
        store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW, seen=sweep)
    seen = store.sweep(sweep.id)
    store.change_spec(sweep.id, {}, seen=seen, at=NOW)
    with pytest.raises(Conflict, match="another driver or spec"):
        store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW, seen=seen)
    assert store.sweep(sweep.id).state is SweepState.QUEUED
    assert store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW, seen=store.sweep(sweep.id)).running_since == NOW


def test_a_move_after_another_state_is_refused(store: Store) -> None:
    """Also one that is legal from the state by now; of those at once that saw the same state, one is made."""
    sweep = add_sweep(store)
    store.move_sweep(sweep.id, SweepState.PAUSED, at=NOW)
    with pytest.raises(Conflict, match=f"sweep {sweep.id} is paused by now, not queued"):
        store.move_sweep(sweep.id, SweepState.STOPPED, at=NOW, after=SweepState.QUEUED)
    moves = [
        lambda state=state: store.move_sweep(sweep.id, state, at=NOW, after=SweepState.PAUSED)  # type: ignore[misc]
        for state in (SweepState.QUEUED, SweepState.STOPPED)
    ]
    assert sum(isinstance(outcome, Sweep) for outcome in together(*moves)) == 1


def test_trials_move_with_their_sweep(store: Store) -> None:
    """Those in the named states, by number, each with its event, and the sweep last; other sweeps' stay."""
    sweep, other = add_sweep(store), add_sweep(store, "other222")
    states = [TrialState.FAILED, TrialState.COMPLETED, TrialState.STOPPED]
    for one in (sweep, other):
        for number, state in enumerate(states):
            store.move_trial(add_trial(store, one, number).id, state, at=NOW, reason="before", values=(0.5,))
    store.move_sweep(sweep.id, SweepState.PAUSED, at=NOW)
    number = store.sweep(sweep.id).last_event
    again = dict.fromkeys((TrialState.STOPPED, TrialState.FAILED), TrialState.PAUSED)
    moved = store.move_sweep(sweep.id, SweepState.QUEUED, at=NOW, reason="again", trial_moves=again)
    assert moved == store.sweep(sweep.id)
    paused, completed = (TrialState.PAUSED, "again", None), (TrialState.COMPLETED, "before", NOW)
    found = store.trials(sweep.id)
    assert [(one.state, one.reason, one.finished_at) for one in found] == [paused, completed, paused]
    told = store.events(sweep.id, after=number)
    assert [event.data for event in told] == [
        as_data(found[0]),
        as_data(found[2]),
        {"state": "queued", "reason": "again"},
    ]
    assert [(event.number, event.kind) for event in told] == [
        (number + 1, "trial"),
        (number + 2, "trial"),
        (number + 3, "sweep"),
    ]
    assert moved.last_event == number + 3
    assert [one.state for one in store.trials(other.id)] == states


@pytest.mark.parametrize(
    ("state", "trial_moves"),
    [
        (SweepState.COMPLETED, {TrialState.FAILED: TrialState.PAUSED}),
        (SweepState.PAUSED, {TrialState.FAILED: TrialState.PAUSED, TrialState.COMPLETED: TrialState.PAUSED}),
    ],
)
def test_where_one_move_is_illegal_none_is_made(
    store: Store, state: SweepState, trial_moves: dict[TrialState, TrialState]
) -> None:
    """Of the sweep or of a trial: nothing is half done, and no event tells of it."""
    sweep = add_sweep(store)
    for number, end in enumerate((TrialState.FAILED, TrialState.COMPLETED)):
        store.move_trial(add_trial(store, sweep, number).id, end, at=NOW, values=(0.5,))
    before = store.sweep(sweep.id), store.trials(sweep.id), store.events(sweep.id)
    with pytest.raises(IllegalMove):
        store.move_sweep(sweep.id, state, at=NOW, trial_moves=trial_moves)
    assert (store.sweep(sweep.id), store.trials(sweep.id), store.events(sweep.id)) == before


def test_a_spec_is_changed_by_who_saw_the_last_one(store: Store) -> None:
    """With an event that has it; not by who saw another state, and not while the sweep is being deleted."""
    sweep = add_sweep(store)
    changed = store.change_spec(sweep.id, {"search": {"trials": 9}}, seen=sweep, at=NOW)
    assert (changed.spec, changed.revision) == ({"search": {"trials": 9}}, 1)
    assert changed == store.sweep(sweep.id)
    assert store.events(sweep.id)[-1].data == {"state": "queued", "reason": "", "spec": {"search": {"trials": 9}}}
    with pytest.raises(Conflict):
        store.change_spec(sweep.id, {}, seen=sweep, at=NOW)
    for state in (SweepState.PAUSED, SweepState.DELETING):
        store.move_sweep(sweep.id, state, at=NOW)
        with pytest.raises(Conflict, match="changed meanwhile"):
            store.change_spec(sweep.id, {}, seen=changed, at=NOW)
    with pytest.raises(Conflict, match="changed meanwhile"):
        store.change_spec(sweep.id, {}, seen=store.sweep(sweep.id), at=NOW)


def test_deaths_are_counted_until_it_is_queued_again(store: Store) -> None:
    """The number of attempts never goes back."""
    sweep = add_sweep(store)
    store.count_attempt(sweep.id)
    store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW)
    store.count_attempt(sweep.id, died=True)
    store.count_attempt(sweep.id)
    assert (store.sweep(sweep.id).attempt, store.sweep(sweep.id).deaths) == (3, 1)
    store.move_sweep(sweep.id, SweepState.FAILED, at=NOW)
    store.move_sweep(sweep.id, SweepState.QUEUED, at=NOW)
    store.count_attempt(sweep.id)
    assert (store.sweep(sweep.id).attempt, store.sweep(sweep.id).deaths) == (4, 0)


def test_a_new_result_makes_up_for_deaths(store: Store) -> None:
    """Of its own sweep; a step that was reported before does not."""
    sweep, other = add_sweep(store), add_sweep(store, "other222")
    trial = add_trial(store, sweep)
    store.add_measurement(measure(trial, 1))
    for one in (sweep, other):
        store.move_sweep(one.id, SweepState.RUNNING, at=NOW)
        store.count_attempt(one.id, died=True)
    store.add_measurement(measure(trial, 1))
    assert [store.sweep(one.id).deaths for one in (sweep, other)] == [1, 1]
    store.add_measurement(measure(trial, 2))
    assert [store.sweep(one.id).deaths for one in (sweep, other)] == [0, 1]


def test_a_deleted_sweep_leaves_nothing_and_others_alone(store: Store) -> None:
    """Its trials, measurements, events, model versions and claims go; an older version of its model is champion."""
    kept, gone = add_sweep(store, "kept2222"), add_sweep(store, "gone2222")
    for sweep in (kept, gone):
        trial = add_trial(store, sweep)
        store.add_measurement(measure(trial))
        offer(store, trial)
    held = claim("key", sweep_id=gone.id)
    store.claim(held, expired_before=NOW - timedelta(days=1))
    store.delete_sweep(gone.id)
    for look in (store.sweep, store.trials, store.measurements, store.events):
        with pytest.raises(NotFound):
            look(gone.id)
    with pytest.raises(NotFound):
        store.trial(f"{gone.id}-0000")
    assert [version.sweep_id for version in store.model_versions("digits")] == [kept.id]
    assert store.champion("digits").sweep_id == kept.id
    assert [(one.number, one.version) for one in store.promotions("digits")] == [(3, 1)]
    assert len(store.measurements(kept.id)) == 1
    new = claim("key", sweep_id="other222")
    assert store.claim(new, expired_before=NOW - timedelta(days=1)) == new
    add_sweep(store, gone.id)
