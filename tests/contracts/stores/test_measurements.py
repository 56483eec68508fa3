"""Measurements: the first report of a step stays."""

from __future__ import annotations

import math

from service.ports import Store
from tests.contracts.store_samples import add_sweep, add_trial, kinds, measure, together


def test_the_first_report_of_a_step_stays(store: Store) -> None:
    """A repeat says so and changes nothing but where the newest checkpoint is."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    assert store.add_measurement(measure(trial, 1, loss=0.3), checkpoint="/c/1") is True
    assert store.add_measurement(measure(trial, 2, loss=0.2), checkpoint="/c/2") is True
    assert store.add_measurement(measure(trial, 1, loss=9.0), checkpoint="/c/1 again") is False
    assert store.add_measurement(measure(trial, 2, loss=9.0)) is False
    assert [one.metrics for one in store.measurements(sweep.id)] == [{"loss": 0.3}, {"loss": 0.2}]
    assert (store.trial(trial.id).step, store.trial(trial.id).checkpoint) == (2, "/c/1 again")
    assert kinds(store, sweep) == ["sweep", "trial", "measurement", "measurement"]


def test_a_measurement_keeps_nan_and_infinity(store: Store) -> None:
    """A diverged loss is a fact; it comes back from the measurement and from its event."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    store.add_measurement(measure(trial, loss=math.nan, high=math.inf, low=-math.inf, fine=0.5))
    for metrics in (store.measurements(sweep.id)[0].metrics, store.events(sweep.id)[-1].data["metrics"]):
        assert math.isnan(metrics["loss"])
        assert (metrics["high"], metrics["low"], metrics["fine"]) == (math.inf, -math.inf, 0.5)


def test_measurements_come_by_trial_and_step(store: Store) -> None:
    """For the whole sweep or for one trial, never another sweep's."""
    sweep, other = add_sweep(store, "here"), add_sweep(store, "there")
    second, first = add_trial(store, sweep, 1), add_trial(store, sweep, 0)
    store.add_measurement(measure(add_trial(store, other)))
    for trial, step in [(second, 1), (first, 2), (first, 1)]:
        store.add_measurement(measure(trial, step))
    found = [(one.trial_id, one.step) for one in store.measurements(sweep.id)]
    assert found == [(first.id, 1), (first.id, 2), (second.id, 1)]
    assert store.measurements(sweep.id, trial_id=second.id) == [measure(second, 1)]
    assert store.measurements(sweep.id, trial_id=f"{other.id}-0000") == []


def test_measurements_from_many_threads_are_all_kept_once(store: Store) -> None:
    """Threads that report overlapping steps of the same trials: each step is kept once and has one event."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(3)]

    def report(order: int) -> list[bool]:
        steps = range(1, 6) if order else range(5, 0, -1)
        return [store.add_measurement(measure(trial, step)) for step in steps for trial in trials]

    kept = together(lambda: report(0), lambda: report(1), lambda: report(0))
    assert sum(sum(answers) for answers in kept if isinstance(answers, list)) == 15
    assert len(store.measurements(sweep.id)) == 15
    assert kinds(store, sweep).count("measurement") == 15
    assert [trial.step for trial in store.trials(sweep.id)] == [5, 5, 5]
