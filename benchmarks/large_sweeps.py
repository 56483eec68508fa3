"""The part of sweep_overhead.py about size: 10,000 recorded trials, 1,000 sweeps. It is no script of its own.

What a sweep leaves in the store is written there at once, row by row as the driver would have; everything is then asked
of the same functions and of the same API that users ask. Times are in milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from sqlalchemy import Table, insert

from benchmarks.recorded import ROOT, spread
from service.adapters import sql_tables
from service.adapters.clock import SystemClock
from service.adapters.optuna_search import Search
from service.adapters.pictures import draw, sweep_figures
from service.adapters.sql_engine import writing
from service.adapters.sql_store import SqlStore
from service.domain import Measurement, Sweep, SweepState, Trial, TrialState, as_data
from service.driver.recorder import Recorder
from service.driver.run import Run
from service.keeping import expendable
from service.leaderboards import Leaderboards
from service.points import Known
from service.settings import Settings
from service.spec import SweepSpec
from tests.ports import free_port

T = TypeVar("T")

STEPS = 5
LOSS = {"metric": "validation/loss", "mode": "min"}
SPEC: dict[str, Any] = {
    "name": "large",
    "family": "narrow_resnet",
    "data": {"name": "digits"},
    "fixed": {"train.max_epochs": STEPS},
    "space": {
        "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "train.weight_decay": {"kind": "float", "low": 1e-6, "high": 1e-2, "log": True},
        "train.batch_size": {"kind": "int", "low": 8, "high": 128, "log": True},
        "model.residual": {"kind": "choice", "values": [True, False]},
    },
}
SAMPLERS = ("tpe", "gp", "random", "quasi-random", "cma-es", "nsga-ii")
NUMBERS = ("cma-es",)
"""Samplers that take numbers only."""
NOWHERE = "http://127.0.0.1:9"
"""Where Ray and MLflow are for the API that is asked: neither is needed."""


def spec(trials: int, *, sampler: str = "tpe", **changes: Any) -> SweepSpec:
    """The spec of the sweep, with one more trial than it has and room for those that are asked for."""
    space = {n: one for n, one in SPEC["space"].items() if sampler not in NUMBERS or one["kind"] != "choice"}
    search = {"sampler": sampler, "trials": trials + 1000} | changes.pop("search", {})
    return SweepSpec.from_dict(SPEC | {"space": space, "search": search} | changes)


def made_up(sweep_id: str, of: SweepSpec, count: int) -> tuple[list[Trial], list[Measurement]]:
    """Trials at random points, each with what it measured: three in four completed, the others pruned after a step.

    A point's accuracy falls with its distance from the middle of the space, and has noise.
    """
    rng = np.random.default_rng(0)
    began = datetime.now(UTC) - timedelta(days=1)
    trials, measurements = [], []
    for number in range(count):
        at = rng.random(len(of.space))
        value = float(0.9 - np.mean((at - 0.5) ** 2) + 0.01 * rng.standard_normal())
        created = began + timedelta(seconds=number)
        pruned = number % 4 == 3
        steps = 1 if pruned else STEPS
        values = None if pruned else ((value, 1 - value) if len(of.objectives) == 2 else (value,))
        trial_id = f"{sweep_id}-{number:04}"
        trials.append(
            Trial(
                id=trial_id,
                sweep_id=sweep_id,
                number=number,
                point=of.space.at(at.tolist()),
                created_at=created,
                state=TrialState.PRUNED if pruned else TrialState.COMPLETED,
                reason="behind other trials at epoch 1" if pruned else "max_epochs reached",
                values=values,
                step=steps,
                checkpoint=f"/sweeps/{sweep_id}/trials/{trial_id}/checkpoint-{steps:06}",
                finished_at=created + timedelta(seconds=0.9),
            )
        )
        for step in range(1, steps + 1):
            metrics = {"validation/accuracy": value - 0.1 / step, "validation/loss": 1 - value + 0.1 / step}
            metrics |= {f"metric/{i}": float(i) for i in range(14)}  # a trial reports about so many
            measurements.append(Measurement(trial_id=trial_id, step=step, at=created, metrics=metrics))
    gone = {one.id for one in expendable(trials, of.to_dict())}  # a sweep removes these checkpoints as it goes
    return [replace(one, checkpoint="") if one.id in gone else one for one in trials], measurements


def keep(store: SqlStore, sweep: Sweep, trials: list[Trial], measurements: list[Measurement]) -> None:
    """Writes a sweep that has ended into the store: its row, its trials, what they measured, and all its events."""
    store.add_sweep(sweep)
    values = {trial.id: trial.values[0] if trial.values else None for trial in trials}
    said = [("trial", as_data(trial), trial.created_at) for trial in trials]
    said += [
        ("measurement", {"trial_id": one.trial_id, "step": one.step, "metrics": one.metrics}, one.at)
        for one in measurements
    ]
    said += [("trial", as_data(trial), trial.finished_at or trial.created_at) for trial in trials]
    events = [
        {"sweep_id": sweep.id, "number": number, "kind": kind, "data": data, "at": at}
        for number, (kind, data, at) in enumerate(said, start=2)
    ]
    rows: dict[Table, list[dict[str, Any]]] = {
        sql_tables.trials: [{**_row(one), "value": values[one.id]} for one in trials],
        sql_tables.measurements: [_row(one) for one in measurements],
        sql_tables.events: events,
    }
    with writing(store.engine) as connection:
        for table, some in rows.items():
            if some:
                connection.execute(insert(table), some)
        table = sql_tables.sweeps
        ended = {"state": SweepState.COMPLETED, "last_event": len(events) + 1, "tracked": len(events) + 1}
        connection.execute(table.update().where(table.c.id == sweep.id).values(ended))


def measure_large(*, trials: int, sweeps_listed: int) -> dict[str, Any]:
    """Everything about size, by name."""
    with tempfile.TemporaryDirectory(prefix="large-") as home:
        url = f"sqlite:///{home}/sweepserve.db"
        with closing(SqlStore(url)) as store:
            store.migrate()
            found = {"trials": trials, "steps_a_trial": STEPS, "sweeps_listed": sweeps_listed}
            print(f"writing {trials:,} trials and {sweeps_listed:,} sweeps", flush=True)
            _fill(store, trials, sweeps_listed)
            found["suggest"] = {name: _suggest(name, trials) for name in SAMPLERS}
            found["rebuild"] = _rebuild(store, trials, Path(home))
            found["store"] = _functions(store)
            found["pictures"] = _pictures(store, trials, Path(home))
        found["http"] = _answers(url, home)
    return found


def _fill(store: SqlStore, count: int, listed: int) -> None:
    now = datetime.now(UTC)
    ways: dict[str, dict[str, Any]] = {
        "large": {},
        "pareto": {"objectives": [{"metric": "validation/accuracy", "mode": "max"}, LOSS]},
        "repeats": {"search": {"repeats": 4}},
    }
    for name, changes in ways.items():
        of = spec(count, **changes)
        sweep = Sweep(id=name, name=name, spec=of.to_dict(), created_at=now)
        trials, measurements = made_up(name, of, count)
        if name == "repeats":
            trials = [replace(one, repeat=one.number % 4, point=trials[one.number // 4 * 4].point) for one in trials]
        keep(store, sweep, trials, measurements if name == "large" else [])
    of = spec(40)
    for number in range(listed - len(ways)):
        sweep_id = f"sweep{number:04}"
        sweep = Sweep(id=sweep_id, name=sweep_id, spec=of.to_dict(), created_at=now - timedelta(seconds=number))
        keep(store, sweep, *made_up(sweep_id, of, 1))


def _suggest(sampler: str, count: int) -> dict[str, Any]:
    """Choosing a point, and telling what it was worth, 20 times; and building the search anew."""
    of = spec(count, sampler=sampler)
    trials, measurements = made_up("s", of, count)
    search, took = once(lambda: Search(of, trials, measurements))
    built = summary([took])
    samples = []
    for _ in range(20):
        samples.append(once(search.ask)[1])
        search.complete(max(search.running), (0.8,))
    found = {"suggest": summary(samples), "build": built}
    print(
        f"{sampler}: {found['suggest']['wall_ms']['median']:.1f} ms a point, {built['wall_ms']['median']:.0f} ms anew"
    )
    return found


def _rebuild(store: SqlStore, count: int, folder: Path) -> dict[str, Any]:
    """What a driver does before it can go on: read the sweep from the store and build its search and pruner."""

    def build() -> None:
        sweep = store.sweep("large")
        recorder = Recorder(store, SystemClock())
        run = Run(
            sweep,
            SweepSpec.from_dict(sweep.spec),
            trials=store.trials("large"),
            measurements=store.measurements("large"),
            folder=folder,
            data_root=folder,
            weights_root=folder,
            referenced_weights={},
            recorder=recorder,
            disk=Settings(home=folder).disk,
            clock=SystemClock(),
        )
        recorder.close()
        assert run.sweep.spec["search"]["trials"] == count + 1000

    return _timed(build, times=3)


def _functions(store: SqlStore) -> dict[str, Any]:
    """The store's own answers, without HTTP; no leaderboard is remembered, but those after another trial."""
    return {
        "leaderboard, first 50": _timed(lambda: Leaderboards(store).page("large", limit=50)),
        "leaderboard, two objectives, first 50": _timed(lambda: Leaderboards(store).page("pareto", limit=50)),
        "leaderboard, four repeats, first 50": _timed(lambda: Leaderboards(store).page("repeats", limit=50)),
        "leaderboard, two objectives, first 50, after another trial": _after_another(store, "pareto", (0.8, 0.2)),
        "leaderboard, four repeats, first 50, after another trial": _after_another(store, "repeats", (0.8,)),
        "sweeps, first 100": _timed(lambda: store.sweeps(limit=100)),
        "count trials": _timed(lambda: store.count_trials("large")),
        "all trials": _timed(lambda: store.trials("large"), times=5),
        "all measurements": _timed(lambda: store.measurements("large"), times=3),
    }


def _after_another(store: SqlStore, sweep_id: str, values: tuple[float, ...], *, times: int = 20) -> dict[str, Any]:
    """The first page, each time with one more trial, the first of its point, completed since it was seen last."""
    boards, samples = Leaderboards(store), []
    boards.page(sweep_id, limit=50)
    for _ in range(times):
        last = store.trials(sweep_id)[-1]
        trial = Trial(
            id=f"{sweep_id}-{last.number + 4:04}",
            sweep_id=sweep_id,
            number=last.number + 4,
            point=last.point,
            created_at=datetime.now(UTC),
        )
        store.add_trial(trial)
        store.move_trial(trial.id, TrialState.COMPLETED, at=datetime.now(UTC), values=values)
        samples.append(once(lambda: boards.page(sweep_id, limit=50))[1])
    return summary(samples)


def _pictures(store: SqlStore, count: int, folder: Path) -> dict[str, Any]:
    """What is drawn at a sweep's end."""
    of, trials, measurements = spec(count), store.trials("large"), store.measurements("large")
    search = Search(of, known=[Known(one.point, one.values) for one in trials if one.values])
    return {
        "importances": _timed(search.importances, times=1),
        "figures": _timed(lambda: draw(folder / "pictures", sweep_figures(of, trials, measurements, {})), times=1),
    }


def _answers(url: str, home: str) -> dict[str, Any]:
    """The same over HTTP, by the API in a process of its own, one request after the other on one connection."""
    asked = {
        "leaderboard, first 50": "/v1/sweeps/large/leaderboard?limit=50",
        "leaderboard, two objectives, first 50": "/v1/sweeps/pareto/leaderboard?limit=50",
        "leaderboard, four repeats, first 50": "/v1/sweeps/repeats/leaderboard?limit=50",
        "sweeps, first 100": "/v1/sweeps?limit=100",
        "a sweep": "/v1/sweeps/large",
    }
    with _api(url, home) as client:
        found = {}
        for name, path in asked.items():
            client.get(path).raise_for_status()
            samples = []
            for _ in range(30):
                began = time.perf_counter()
                client.get(path).raise_for_status()
                samples.append(1e3 * (time.perf_counter() - began))
            found[name] = {"wall_ms": spread(samples)}
            print(f"GET {name}: {found[name]['wall_ms']['median']:.1f} ms", flush=True)
        return found


@contextmanager
def _api(url: str, home: str) -> Iterator[httpx.Client]:
    settings = {"HOME": home, "DATABASE": url, "PORT": str(free_port()), "RAY_URL": NOWHERE, "MLFLOW_URL": NOWHERE}
    environment = os.environ | {f"SWEEPSERVE_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "service", "api"]
    api = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings['PORT']}", trust_env=False, timeout=60) as client:
            wait_for(lambda: client.get("/healthz").is_success)
            yield client
    finally:
        api.terminate()
        api.wait(timeout=30)


def wait_for(serves: Callable[[], bool], *, seconds: float = 120) -> None:
    """Returns once a server answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if serves():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"no answer within {seconds:g} s")


def _row(noun: Any) -> dict[str, Any]:
    return {field.name: getattr(noun, field.name) for field in fields(noun)}


def once(do: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """The answer; and the milliseconds that it took by the clock, and of this process's processor time."""
    began, busy = time.perf_counter(), time.process_time()
    answer = do()
    return answer, (1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - busy))


def _timed(do: Callable[[], object], *, times: int = 20) -> dict[str, Any]:
    if times > 3:
        do()
    return summary([once(do)[1] for _ in range(times)])


def summary(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """Of what `once` gave."""
    wall, busy = zip(*samples, strict=True)
    return {"wall_ms": spread(wall), "cpu_ms": spread(busy)}
