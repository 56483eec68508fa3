"""Checkpoints: forgotten when nobody needs them, and never in the moment in which somebody begins to."""

from __future__ import annotations

from typing import Any

import pytest

from service.domain import Sweep, SweepState, Trial, TrialState
from service.errors import Conflict
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, measure, offer, together


def ended(store: Store, sweep: Sweep, number: int = 0, state: TrialState = TrialState.COMPLETED) -> Trial:
    """A trial with a checkpoint, in its last state."""
    trial = add_trial(store, sweep, number)
    store.add_measurement(measure(trial), checkpoint="/there")
    return store.move_trial(trial.id, state, at=NOW, values=(0.5,))


def start_from(store: Store, trial: Trial, sweep_id: str = "second", *, searched: bool = False) -> Sweep:
    """A sweep whose trials start from that one's weights."""
    name, value = "train.initial_weights", f"trial:{trial.id}"
    part = {"space": {name: {"kind": "choice", "values": [None, value]}}} if searched else {"fixed": {name: value}}
    return add_sweep(store, sweep_id, spec={"family": "narrow_resnet", **part})


@pytest.mark.parametrize("state", [TrialState.COMPLETED, TrialState.PRUNED])
def test_a_checkpoint_that_nobody_needs_is_forgotten(store: Store, state: TrialState) -> None:
    """Again too; everything else of the trial stays, and a late report does not bring it back."""
    trial = ended(store, add_sweep(store), state=state)
    assert store.forget_checkpoint(trial.id)
    assert store.forget_checkpoint(trial.id)
    forgotten = store.trial(trial.id)
    assert (forgotten.weights, forgotten.state, forgotten.values, forgotten.step) == ("removed", state, (0.5,), 1)
    store.add_measurement(measure(trial, 2), checkpoint="/late")
    assert store.trial(trial.id).weights == "removed"


@pytest.mark.parametrize("state", [TrialState.PAUSED, TrialState.STOPPED, TrialState.FAILED])
def test_a_trial_that_may_go_on_keeps_its_checkpoint(store: Store, state: TrialState) -> None:
    """Also one that has none yet, and one that runs."""
    sweep = add_sweep(store)
    trial, running = ended(store, sweep, state=state), add_trial(store, sweep, 1)
    assert not store.forget_checkpoint(trial.id)
    assert not store.forget_checkpoint(running.id)
    assert store.trial(trial.id).checkpoint == "/there"
    store.move_trial(running.id, TrialState.PRUNED, at=NOW)
    assert not store.forget_checkpoint(running.id), "there is nothing to forget"


def test_a_version_of_a_model_keeps_its_checkpoint(store: Store) -> None:
    """The champion or not; and a trial without weights cannot become one."""
    sweep = add_sweep(store)
    first, second, third = (ended(store, sweep, number) for number in range(3))
    offer(store, first)
    offer(store, second)
    assert [store.forget_checkpoint(trial.id) for trial in (first, second, third)] == [False, False, True]
    with pytest.raises(Conflict, match=f"the weights of trial {third.id} were removed"):
        offer(store, third)
    assert len(store.model_versions("digits")) == 2


@pytest.mark.parametrize("searched", [False, True])
def test_what_another_sweep_starts_from_stays(store: Store, searched: bool) -> None:
    """Until that one is being deleted; a sweep of another trial with a similar id changes nothing."""
    sweep = add_sweep(store)
    trial, other = ended(store, sweep), ended(store, sweep, 1)
    starting = start_from(store, trial, searched=searched)
    similar = Trial(id=f"{other.id}0", sweep_id=sweep.id, number=2, point={}, created_at=NOW)
    store.add_trial(similar)
    start_from(store, similar, "third")
    assert not store.forget_checkpoint(trial.id)
    assert store.forget_checkpoint(other.id)
    store.move_sweep(starting.id, SweepState.DELETING, at=NOW)
    assert store.forget_checkpoint(trial.id)
    with pytest.raises(Conflict, match=f"the weights of trial {trial.id} were removed"):
        start_from(store, trial, "fourth", searched=searched)


@pytest.mark.parametrize("searched", [False, True])
def test_a_sweep_is_not_deleted_while_another_that_starts_from_it_may_run(store: Store, searched: bool) -> None:
    """In every state until that one has ended, or is being deleted itself; what starts from others is no matter."""
    sweep, other = add_sweep(store), add_sweep(store, "other222")
    trial, elsewhere = ended(store, sweep), ended(store, other)
    start_from(store, elsewhere, "another", searched=searched)
    starting = start_from(store, trial, searched=searched)
    for state in (SweepState.QUEUED, SweepState.RUNNING, SweepState.PAUSING, SweepState.PAUSED):
        if state is not SweepState.QUEUED:
            store.move_sweep(starting.id, state, at=NOW)
        with pytest.raises(Conflict, match=f"sweep second starts from trial {trial.id}, and has not ended"):
            store.move_sweep(sweep.id, SweepState.DELETING, at=NOW)
    assert store.sweep(sweep.id).state is SweepState.QUEUED
    store.move_sweep(starting.id, SweepState.STOPPED, at=NOW)
    assert store.move_sweep(sweep.id, SweepState.DELETING, at=NOW).state is SweepState.DELETING


def test_a_sweep_starts_from_no_trial_that_is_being_deleted(store: Store) -> None:
    """Nor from one that has been deleted since it was looked up."""
    sweep = add_sweep(store)
    trial = ended(store, sweep)
    store.move_sweep(sweep.id, SweepState.DELETING, at=NOW)
    with pytest.raises(Conflict, match=f"trial {trial.id} is deleted with its sweep"):
        start_from(store, trial)
    store.delete_sweep(sweep.id)
    with pytest.raises(Conflict, match=f"trial {trial.id} is deleted with its sweep"):
        start_from(store, trial)


def test_of_deleting_and_beginning_to_start_from_it_one_wins(store: Store) -> None:
    """In the same moment, again and again: never are both told yes."""
    for number in range(20):
        sweep = add_sweep(store, f"source{number}")
        trial = ended(store, sweep)
        outcomes = together(
            lambda trial=trial, number=number: start_from(store, trial, f"other{number}"),  # type: ignore[misc]
            lambda sweep=sweep: store.move_sweep(sweep.id, SweepState.DELETING, at=NOW),  # type: ignore[misc]
        )
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1


@pytest.mark.parametrize("begin", ["sweep", "model"])
def test_of_forgetting_and_beginning_to_need_one_wins(store: Store, begin: str) -> None:
    """In the same moment, again and again: never are both told yes."""
    sweep = add_sweep(store)
    for number in range(20):
        trial = ended(store, sweep, number)

        def need(trial: Trial = trial, number: int = number) -> Any:
            return start_from(store, trial, f"other{number}") if begin == "sweep" else offer(store, trial)

        needed, forgotten = together(need, lambda trial=trial: store.forget_checkpoint(trial.id))  # type: ignore[misc]
        assert isinstance(needed, Conflict) is forgotten
        assert store.trial(trial.id).weights == ("removed" if forgotten else "kept")
