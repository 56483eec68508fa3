"""Model versions: numbered from one, each trial once."""

from __future__ import annotations

from service.domain import ModelVersion, as_data
from service.errors import Conflict
from service.ports import Store
from tests.contracts.store_samples import add_sweep, add_trial, kinds, offer, together


def test_versions_of_a_model_are_numbered_from_one(store: Store) -> None:
    """Newest first, each name by itself; the event is the whole version, with the number of its promotion."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(2)]
    first, second = (offer(store, trial) for trial in trials)
    other = offer(store, trials[0], name="other")
    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert store.model_versions("digits") == [second, first]
    assert store.model_versions("unknown") == []
    assert store.models() == [second, other]
    assert store.events(sweep.id)[-1].data == {**as_data(other), "promotion": 1}


def test_the_same_trial_again_is_the_same_version(store: Store) -> None:
    """Without an event, also when other versions followed."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(2)]
    first, second = (offer(store, trial) for trial in trials)
    assert offer(store, trials[0], value=0.7, after=0) == first
    assert store.model_versions("digits") == [second, first]
    assert kinds(store, sweep).count("model") == 2


def test_a_version_is_added_only_after_the_one_its_caller_knows(store: Store) -> None:
    """Sweeps of one name that compare with the same champion at once: one replaces it, the others hear of it."""
    trials = [add_trial(store, add_sweep(store, f"sweep{number}")) for number in range(4)]
    outcomes = together(*(lambda trial=trial: offer(store, trial, after=0) for trial in trials))
    assert sum(isinstance(outcome, ModelVersion) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 3
    outcomes = together(*(lambda trial=trial: offer(store, trial) for trial in trials))
    assert sorted(outcome.version for outcome in outcomes if isinstance(outcome, ModelVersion)) == [1, 2, 3, 4]


def test_a_version_number_is_never_given_to_two(store: Store) -> None:
    """Also after the sweep of an earlier version was deleted, of the newest, of all: the numbers go on."""
    trials = [add_trial(store, add_sweep(store, f"sweep{number}")) for number in range(5)]
    first, second = (offer(store, trial) for trial in trials[:2])
    store.delete_sweep(first.sweep_id)
    third = offer(store, trials[2])
    assert (third.version, store.model_versions("digits")) == (3, [third, second])
    assert store.champion("digits") == third
    store.delete_sweep(third.sweep_id)
    fourth = offer(store, trials[3])
    assert (fourth.version, store.model_versions("digits")) == (4, [fourth, second])
    for version in (second, fourth):
        store.delete_sweep(version.sweep_id)
    assert offer(store, trials[4]).version == 5
