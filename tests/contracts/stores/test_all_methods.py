"""What holds for every method of a store."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from service.domain import Measurement, SweepState, Trial, TrialState
from service.errors import NotFound
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, kinds, offer


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.sweep("none"),
        lambda store: store.measurements("known", after=("none", 1)),
        lambda store: store.curves("none", []),
        lambda store: store.ahead("none"),
        lambda store: store.move_sweep("none", SweepState.RUNNING, at=NOW),
        lambda store: store.count_attempt("none"),
        lambda store: store.change_spec("none", {}, seen=store.sweep("known"), at=NOW),
        lambda store: store.delete_sweep("none"),
        lambda store: store.add_trial(Trial(id="t", sweep_id="none", number=0, point={}, created_at=NOW)),
        lambda store: store.trial("none"),
        lambda store: store.trials("none"),
        lambda store: store.count_trials("none"),
        lambda store: store.best_trials("none", mode="max"),
        lambda store: store.add_measurement(Measurement(trial_id="none", step=1, at=NOW, metrics={})),
        lambda store: store.forget_checkpoint("none"),
        lambda store: store.move_trial("none", TrialState.STOPPED, at=NOW),
        lambda store: store.add_exploits("none", [], at=NOW),
        lambda store: store.measurements("none"),
        lambda store: store.measurements("known", trial_id="none"),
        lambda store: offer(store, Trial(id="none", sweep_id="known", number=0, point={}, created_at=NOW)),
        lambda store: offer(store, Trial(id="known-0000", sweep_id="none", number=0, point={}, created_at=NOW)),
        lambda store: store.add_progress("none", what="images", done=1, total=1, at=NOW),
        lambda store: store.add_wait("none", reason="no room", at=NOW),
        lambda store: store.events("none"),
        lambda store: store.set_tracked("none", 1),
    ],
)
def test_an_id_that_names_nothing_is_not_found(store: Store, call: Callable[[Store], object]) -> None:
    """By every method that takes one, with the id in the message; and nothing is written."""
    known = add_sweep(store, "known")
    add_trial(store, known)
    with pytest.raises(NotFound, match="'none'"):
        call(store)
    assert kinds(store, known) == ["sweep", "trial"]


@pytest.mark.parametrize("name", ["", "\0", "\ud800", "x" * 1000, "'; DROP TABLE sweeps; --"])
def test_names_that_cannot_be_are_not_found(store: Store, name: str) -> None:
    """Whatever a stranger puts into a URL."""
    for call in (store.sweep, store.trial, store.trials, store.events):
        with pytest.raises(NotFound):
            call(name)
    assert store.model_versions(name) == []
    assert store.sweeps(name=name) == []


def test_what_is_handed_out_and_in_are_copies(store: Store) -> None:
    """Changing a mapping that went in or came out does not change the store."""
    spec: dict[str, Any] = {"space": {"x": [1, 2]}}
    sweep = add_sweep(store, spec=spec)
    trial = add_trial(store, sweep, point={"x": [1]})
    metrics = {"loss": 1.0}
    store.add_measurement(Measurement(trial_id=trial.id, step=1, at=NOW, metrics=metrics))
    metrics["loss"] = 2.0
    for mapping in (spec["space"], store.sweep(sweep.id).spec["space"], store.sweeps()[0].spec["space"]):
        mapping["x"].append(3)
    for mapping in (trial.point, store.trial(trial.id).point, store.trials(sweep.id)[0].point):
        mapping["x"].append(2)
    store.measurements(sweep.id)[0].metrics["loss"] = 3.0  # type: ignore[index]
    store.events(sweep.id)[-1].data["metrics"]["loss"] = 3.0
    assert store.sweep(sweep.id).spec == {"space": {"x": [1, 2]}}
    assert store.trial(trial.id).point == {"x": [1]}
    assert store.measurements(sweep.id)[0].metrics == {"loss": 1.0}
    assert store.events(sweep.id)[-1].data["metrics"] == {"loss": 1.0}


def test_a_refused_change_leaves_no_trace(store: Store) -> None:
    """A transaction is all or nothing: what cannot be kept leaves neither a row nor a gap in the numbers."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    with pytest.raises(TypeError):
        store.add_measurement(Measurement(trial_id=trial.id, step=1, at=NOW, metrics={"loss": object()}))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="finite"):
        store.move_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(math.nan,))
    assert store.measurements(sweep.id) == []
    assert store.trial(trial.id) == trial
    assert store.sweep(sweep.id).last_event == 2
