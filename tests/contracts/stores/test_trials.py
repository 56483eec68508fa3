"""Trials: kept, listed, ended, ranked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from service.domain import Exploit, Trial, TrialState, as_data
from service.errors import Conflict, IllegalMove, NotFound
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, complete, kinds, measure


def test_a_trial_comes_back_as_it_was(store: Store) -> None:
    """Its point may hold any JSON value, also one that looks like a number that is none."""
    sweep = add_sweep(store)
    point = {"a": [1, [2, 3]], "b": None, "c": "NaN", "d": {"e": -0.5}, "f": True}
    trial = add_trial(store, sweep, point=point)
    assert store.trial(trial.id) == trial
    assert store.trials(sweep.id) == [trial]
    assert store.events(sweep.id)[-1].data == as_data(trial)


def test_adding_a_trial_again_changes_nothing(store: Store) -> None:
    """A driver that starts over may repeat itself, also when the trial has gone on meanwhile."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    ended = store.move_trial(trial.id, TrialState.PRUNED, at=NOW)
    add_trial(store, sweep, point={})
    assert store.trial(trial.id) == ended
    assert kinds(store, sweep) == ["sweep", "trial", "trial"]


def test_two_trials_cannot_share_a_number(store: Store) -> None:
    """Numbers are unique within a sweep, not across sweeps."""
    first, second = add_sweep(store, "first"), add_sweep(store, "second")
    trial = add_trial(store, first)
    add_trial(store, second)
    with pytest.raises(Conflict, match="another trial number 0"):
        store.add_trial(Trial(id="else", sweep_id=first.id, number=0, point={}, created_at=NOW))
    assert store.trials(first.id) == [trial]


def test_trials_are_listed_by_number_and_found_by_state(store: Store) -> None:
    """Whatever the order in which they came."""
    sweep = add_sweep(store)
    for number in (2, 0, 1):
        add_trial(store, sweep, number)
    store.move_trial(f"{sweep.id}-0001", TrialState.FAILED, at=NOW, reason="NaN")
    assert [trial.number for trial in store.trials(sweep.id)] == [0, 1, 2]
    assert [trial.number for trial in store.trials(sweep.id, states=[TrialState.RUNNING])] == [0, 2]
    assert store.trials(sweep.id, states=[TrialState.COMPLETED]) == []
    assert store.count_trials(sweep.id) == {TrialState.RUNNING: 2, TrialState.FAILED: 1}


def test_an_ended_trial_keeps_its_values_and_stays_ended(store: Store) -> None:
    """Values of several objectives survive; a second end is refused and leaves the first."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    ended = store.move_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(0.9, 1e-300))
    assert (ended.state, ended.values, ended.finished_at) == (TrialState.COMPLETED, (0.9, 1e-300), NOW)
    assert store.trial(trial.id) == ended
    with pytest.raises(IllegalMove, match="is completed and cannot become failed"):
        store.move_trial(trial.id, TrialState.FAILED, at=NOW)
    assert store.trial(trial.id) == ended
    assert store.events(sweep.id)[-1].data == as_data(ended)


@pytest.mark.parametrize("state", [TrialState.PAUSED, TrialState.COMPLETED])
def test_a_move_that_was_made_changes_nothing(store: Store, state: TrialState) -> None:
    """A writer whose connection broke before it heard of its success asks again; for another move it is refused."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    moved = store.move_trial(trial.id, state, at=NOW, reason="so", values=(0.9,))
    assert store.move_trial(trial.id, state, at=NOW, reason="so", values=(0.9,)) == moved
    assert kinds(store, sweep) == ["sweep", "trial", "trial"]
    with pytest.raises(IllegalMove):
        store.move_trial(trial.id, state, at=NOW, reason="otherwise")


def test_a_failed_trial_may_have_values_that_are_no_numbers(store: Store) -> None:
    """NaN and the infinities come back, from the trial and from its event."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    store.move_trial(trial.id, TrialState.FAILED, at=NOW, values=(math.nan, math.inf, -math.inf))
    for values in (store.trial(trial.id).values, store.events(sweep.id)[-1].data["values"]):
        assert math.isnan(values[0])
        assert list(values[1:]) == [math.inf, -math.inf]


def test_trials_are_read_by_their_numbers(store: Store) -> None:
    """Those that there are, in order, with what else is asked for; of no numbers there are none."""
    sweep = add_sweep(store)
    added = [add_trial(store, sweep, number) for number in range(4)]
    assert store.trials(sweep.id, numbers=[3, 7, 1]) == [added[1], added[3]]
    assert store.trials(sweep.id, numbers=[3, 1], after=1, states=[TrialState.RUNNING]) == [added[3]]
    assert store.trials(sweep.id, numbers=[]) == []


def test_the_best_trials_are_completed_ones_in_order(store: Store) -> None:
    """Best first by the mode, equals by number; trials that did not complete never compete."""
    sweep = add_sweep(store)
    complete(store, sweep, [0.5, -1.0, 0.9, 0.5])
    add_trial(store, sweep, 4)
    store.move_trial(add_trial(store, sweep, 5).id, TrialState.PRUNED, at=NOW, values=(7.0,))
    assert [trial.number for trial in store.best_trials(sweep.id, mode="max")] == [2, 0, 3, 1]
    assert [trial.number for trial in store.best_trials(sweep.id, mode="min")] == [1, 0, 3, 2]
    assert [trial.number for trial in store.best_trials(sweep.id, mode="max", limit=1)] == [2]
    assert sorted(store.completed(sweep.id)) == [0, 1, 2, 3]


def exploit(trial: Trial, source: Trial, step: int = 2, rate: float = 0.02) -> Exploit:
    """The trial goes on from the other one."""
    return Exploit(
        trial_id=trial.id,
        step=step,
        source=source.id,
        before=dict(trial.point),
        point={**trial.point, "train.learning_rate": rate},
        checkpoint=f"/sweeps/{trial.id}/checkpoint-{step:06}",
    )


def test_exploits_of_a_look_come_together_and_once(store: Store) -> None:
    """Each changes its trial's point and checkpoint, is told by an event, and stays when it comes again."""
    sweep = add_sweep(store)
    one, two, three = (add_trial(store, sweep, number) for number in range(3))
    store.add_measurement(measure(one, 2), checkpoint="/its/own")
    exploits = [exploit(one, three), exploit(two, three)]
    store.add_exploits(sweep.id, exploits, at=NOW)
    store.add_exploits(sweep.id, [exploit(one, two, rate=0.5)], at=NOW)
    changed = store.trial(one.id)
    assert changed.exploits == (exploits[0],)
    assert (changed.point, changed.checkpoint) == (exploits[0].point, exploits[0].checkpoint)
    assert (changed.step, changed.values, changed.state) == (2, None, TrialState.RUNNING)
    store.add_exploits(sweep.id, [exploit(changed, two, step=4)], at=NOW)
    assert [made.step for made in store.trial(one.id).exploits] == [2, 4]
    ended = store.move_trial(one.id, TrialState.COMPLETED, at=NOW, values=(0.5,))
    assert (ended.values, len(ended.exploits)) == ((0.5,), 2)
    told = [event.data for event in store.events(sweep.id) if event.kind == "exploit"]
    assert told == [as_data(made) for made in (*exploits, ended.exploits[1])]
    assert Exploit(**store.events(sweep.id)[-1].data["exploits"][1]) == ended.exploits[1]


def test_a_look_with_an_unknown_trial_changes_nothing(store: Store) -> None:
    """All of them or none; a trial of another sweep is unknown here."""
    sweep, other = add_sweep(store), add_sweep(store, "bbbb2222")
    one, two, theirs = add_trial(store, sweep), add_trial(store, sweep, 1), add_trial(store, other)
    for stranger in (theirs, replace(two, id="nobody")):
        with pytest.raises(NotFound, match=stranger.id):
            store.add_exploits(sweep.id, [exploit(one, two), exploit(stranger, two)], at=NOW)
    assert store.trial(one.id) == one
    assert "exploit" not in kinds(store, sweep)
