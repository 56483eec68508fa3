"""What the stores' tests put in and look for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from service.domain import Measurement, ModelVersion, Sweep, Trial, TrialState
from service.errors import Conflict
from service.port_values import Claim
from service.ports import Store

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def add_sweep(store: Store, sweep_id: str = "aaaa2222", *, age: float = 0, **changes: Any) -> Sweep:
    """A sweep in the store, `age` seconds old."""
    values = {"id": sweep_id, "name": "digits", "spec": {"family": "narrow_resnet"}} | changes
    sweep = Sweep(created_at=NOW - timedelta(seconds=age), **values)
    store.add_sweep(sweep)
    return sweep


def add_trial(store: Store, sweep: Sweep, number: int = 0, **changes: Any) -> Trial:
    """A trial of the sweep in the store."""
    values = {"point": {"train.learning_rate": 0.01, "model.channels": [16, 32]}} | changes
    trial = Trial(id=f"{sweep.id}-{number:04}", sweep_id=sweep.id, number=number, created_at=NOW, **values)
    store.add_trial(trial)
    return trial


def measure(trial: Trial, step: int = 1, **metrics: float) -> Measurement:
    """What the trial may report."""
    return Measurement(trial_id=trial.id, step=step, at=NOW, metrics=metrics or {"validation/accuracy": 0.5})


def complete(store: Store, sweep: Sweep, values: list[float]) -> None:
    """Adds a completed trial for each value."""
    for number, value in enumerate(values):
        trial = add_trial(store, sweep, number)
        store.move_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(value,))


def kinds(store: Store, sweep: Sweep) -> list[str]:
    """The kinds of the sweep's events in order."""
    return [event.kind for event in store.events(sweep.id)]


def together(*calls: Callable[[], object]) -> list[object]:
    """What the calls return, or the Conflict that they raise, started at the same moment in a thread each."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        start.wait()
        try:
            return call()
        except Conflict as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def offer(store: Store, trial: Trial, **changes: Any) -> ModelVersion:
    """The trial as the newest version of a model."""
    values = {"name": "digits", "sweep_id": trial.sweep_id, "trial_id": trial.id, "value": 0.5, "path": "/m"} | changes
    return store.add_model_version(at=NOW, **values)


def claim(key: str = "key", *, age: float = 0, **changes: Any) -> Claim:
    """What a request with an idempotency key claims, `age` seconds ago."""
    values = {"fingerprint": "f" * 64, "sweep_id": "aaaa2222"} | changes
    return Claim(key=key, at=NOW - timedelta(seconds=age), **values)
