"""Lists read page by page, while they change."""

from __future__ import annotations

from service.domain import TrialState
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, complete, measure, offer


def test_trials_go_on_after_a_number(store: Store) -> None:
    """By number, of the states asked for."""
    sweep = add_sweep(store)
    for number in (3, 0, 1, 2):
        add_trial(store, sweep, number)
    store.move_trial(f"{sweep.id}-0001", TrialState.FAILED, at=NOW)
    assert [trial.number for trial in store.trials(sweep.id, limit=2)] == [0, 1]
    assert [trial.number for trial in store.trials(sweep.id, limit=2, after=0)] == [1, 2]
    assert [trial.number for trial in store.trials(sweep.id, states=[TrialState.RUNNING], after=0)] == [2, 3]
    assert store.trials(sweep.id, after=3) == []


def test_the_best_trials_go_on_after_a_place(store: Store) -> None:
    """Equals by number; a better trial that completes meanwhile moves nothing."""
    sweep = add_sweep(store)
    complete(store, sweep, [0.5, -1.0, 0.9, 0.5])
    assert [trial.number for trial in store.best_trials(sweep.id, mode="max", limit=2)] == [2, 0]
    store.move_trial(add_trial(store, sweep, 4).id, TrialState.COMPLETED, at=NOW, values=(0.95,))
    assert [trial.number for trial in store.best_trials(sweep.id, mode="max", limit=2, after=(0.5, 0))] == [3, 1]
    assert [trial.number for trial in store.best_trials(sweep.id, mode="min", after=(0.5, 0))] == [3, 2, 4]
    assert store.best_trials(sweep.id, mode="max", after=(-1.0, 1)) == []


def test_measurements_go_on_after_a_step(store: Store) -> None:
    """From the last step of one trial to the first of the next."""
    sweep, other = add_sweep(store), add_sweep(store, "bbbb3333")
    for number in (1, 0):
        for step in (2, 1):
            store.add_measurement(measure(add_trial(store, sweep, number), step))
    store.add_measurement(measure(add_trial(store, other), 7))
    first, second = f"{sweep.id}-0000", f"{sweep.id}-0001"

    def listed(**page: object) -> list[tuple[str, int]]:
        return [(one.trial_id, one.step) for one in store.measurements(sweep.id, **page)]  # type: ignore[arg-type]

    assert listed(limit=1) == [(first, 1)]
    assert listed(limit=2, after=(first, 1)) == [(first, 2), (second, 1)]
    assert listed(after=(first, 9), trial_id=second) == [(second, 1), (second, 2)]
    assert listed(after=(second, 2)) == []


def test_curves_are_thinned_evenly_back_from_the_last_step(store: Store) -> None:
    """At most so many points of each trial asked for, however long it ran; whole ones if nobody asks."""
    sweep = add_sweep(store)
    for number, steps in enumerate([10, 3, 1, 0, 5]):
        trial = add_trial(store, sweep, number)
        for step in range(1, steps + 1):
            store.add_measurement(measure(trial, step))
    ids = [f"{sweep.id}-{number:04}" for number in (1, 0, 2, 3)]

    def steps_of(points: int | None) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for one in store.curves(sweep.id, ids, points=points):
            found.setdefault(one.trial_id[-1], []).append(one.step)
        return found

    assert steps_of(None) == {"0": list(range(1, 11)), "1": [1, 2, 3], "2": [1]}
    assert steps_of(4) == {"0": [1, 4, 7, 10], "1": [1, 2, 3], "2": [1]}
    assert steps_of(3) == {"0": [2, 6, 10], "1": [1, 2, 3], "2": [1]}
    assert steps_of(1) == {"0": [10], "1": [3], "2": [1]}
    assert list(steps_of(None)) == ["0", "1", "2"]
    assert store.curves(sweep.id, []) == []


def test_models_go_on_after_a_name_and_are_found_by_family(store: Store) -> None:
    """By the characters' numbers, the champion of each."""
    narrow, pose = add_sweep(store), add_sweep(store, "bbbb3333", spec={"family": "pose_net"})
    for number, name in enumerate(["b", "B-1", "a_2", "a.1", "a"]):
        offer(store, add_trial(store, narrow if number % 2 else pose, number), name=name)
    assert [model.name for model in store.models()] == ["B-1", "a", "a.1", "a_2", "b"]
    assert [model.name for model in store.models(limit=2)] == ["B-1", "a"]
    assert [model.name for model in store.models(limit=2, after="a")] == ["a.1", "a_2"]
    assert [model.name for model in store.models(family="pose_net", after="B")] == ["a", "a_2", "b"]
    assert [model.name for model in store.models(family="narrow_resnet")] == ["B-1", "a.1"]
    assert store.models(family="none") == []


def test_versions_and_promotions_go_on_below_a_number(store: Store) -> None:
    """Newest first."""
    sweep = add_sweep(store)
    for number in range(4):
        offer(store, add_trial(store, sweep, number))
    assert [version.version for version in store.model_versions("digits", limit=2)] == [4, 3]
    assert [version.version for version in store.model_versions("digits", limit=2, before=3)] == [2, 1]
    assert [promotion.number for promotion in store.promotions("digits", limit=3)] == [4, 3, 2]
    assert [promotion.number for promotion in store.promotions("digits", before=2)] == [1]
