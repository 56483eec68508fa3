"""What does a trial cost beside its training, and what does a sweep of 10,000 trials?

    python benchmarks/sweep_overhead.py                  # everything, in under 12 minutes on 2 cores
    python benchmarks/sweep_overhead.py --only trials    # or driver, or size

**Trials.** 40 trials of 5 nearly empty steps, two at a time, with MLflow: (a) as the documentation of the libraries
has it (peers/tune_optuna_mlflow.py), whose steps compute a formula; (b) by this service as `sweepserve up` runs it,
whose steps train a network of one channel on 16 images, validate it and write a checkpoint; and (b) once more with
MLflow gone. They take turns, a round each, each in processes of its own, with the same MLflow server. What is compared
is the wall time of the sweep over its trials: of (a) from `fit` to its return, all of it; of (b) from the first word
of its driver to the sweep's end, pictures and champions included, less what its trials measured as training, two at a
time.

**Driver.** What the driver does for one result, from the worker's report to the commit: the run's bookkeeping, pruner
(ASHA) and store together, one after the other though they are two threads. On SQLite, and where PostgreSQL is
installed on that; in an empty sweep and in one of 10,000 trials.

**Size.** See large_sweeps.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.large_sweeps import keep, made_up, measure_large, once, spec, summary, wait_for
from benchmarks.recorded import ProcessorTime, record, spread
from service.adapters.clock import SystemClock
from service.adapters.sql_store import SqlStore
from service.client import Client
from service.domain import Sweep
from service.driver.run import Run
from service.ports import Store
from service.programs import programs
from service.settings import Settings
from tests.conftest import Postgres, StackRunner, postgres_programs
from tests.ports import free_port
from trainables.trainable import Report

TRIALS, STEPS, CONCURRENT = 40, 5, 2
WANTED = {
    "seconds_a_trial_beside_training": 0.3,
    "times_less_than_documented": 5,
    "driver_ms_a_result": 2,
    "suggest_ms": 150,
    "leaderboard_page_ms": 50,
    "sweeps_page_ms": 20,
}
SWEEP: dict[str, Any] = {
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 8, "train": 16, "validation": 16, "test": 16},
    "fixed": {"model.channels": [1, 1, 1, 1], "train.batch_size": 16, "train.max_epochs": STEPS},
    "space": {
        "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "train.weight_decay": {"kind": "float", "low": 1e-6, "high": 1e-2, "log": True},
        "model.residual": {"kind": "choice", "values": [True, False]},
    },
    "search": {"trials": TRIALS},
    "stop": {"pruner": "none"},
    "resources": {"max_concurrent": CONCURRENT},
}


def main() -> None:
    """Measures, prints and writes benchmarks/results/sweep_overhead.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="of the trials")
    parser.add_argument("--only", nargs="+", choices=("trials", "driver", "size"), help="the result has no other part")
    parser.add_argument("--size", type=int, default=10_000, help="trials recorded")
    arguments = parser.parse_args()
    began = time.monotonic()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "trials": lambda: _trials(arguments.rounds),
        "driver": lambda: _driver(arguments.size),
        "size": lambda: measure_large(trials=arguments.size, sweeps_listed=1000),
    }
    chosen = arguments.only or list(parts)
    found = {name: part() for name, part in parts.items() if name in chosen}
    print(json.dumps(found, indent=1))
    content = {
        "question": "what a trial costs beside its training, and what a sweep of 10,000 trials does",
        "wanted": WANTED,
        **found,
        "left_out": [name for name in parts if name not in chosen],
        "seconds_in_all": time.monotonic() - began,
    }
    packages = ("ray", "optuna", "mlflow", "sqlalchemy", "fastapi", "torch", "numpy")
    record("sweep_overhead", content, packages=packages)


def _trials(rounds: int) -> dict[str, Any]:
    """Both, in turns; seconds a trial."""
    samples: dict[str, list[dict[str, float]]] = {"documented": [], "ours": [], "ours, MLflow down": []}
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        for number in range(rounds):
            home = Path(folder) / str(number)
            with _mlflow(home / "mlflow") as (address, end):
                samples["documented"].append(_documented(address))
                with _stack(home / "stack", address) as client:
                    samples["ours"].append(_ours(client, f"round-{number}", tracked=True))
                    end()
                    samples["ours, MLflow down"].append(_ours(client, f"round-{number}-down", tracked=False))
            for name, runs in samples.items():
                print(f"round {number + 1}: {name}: {runs[-1]['seconds_a_trial']:.3f} s a trial", flush=True)
    found: dict[str, Any] = {
        name: {key: spread([run.get(key, 0.0) for run in runs]) for key in runs[0]} for name, runs in samples.items()
    }
    documented = [run["seconds_a_trial"] for run in samples.pop("documented")]
    ratios = {  # of each round, whose runs met the same machine
        name: spread([other / run["seconds_a_trial"] for other, run in zip(documented, runs, strict=True)])
        for name, runs in samples.items()
    }
    return {"settings": {"trials": TRIALS, "steps": STEPS, "concurrent": CONCURRENT}, **found, "times_less": ratios}


def _documented(mlflow: str) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).parent / "peers" / "tune_optuna_mlflow.py"), "--mlflow", mlflow]
    command += ["--trials", str(TRIALS), "--steps", str(STEPS), "--concurrent", str(CONCURRENT)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPSERVE_")}
    with tempfile.TemporaryDirectory(prefix="documented-") as folder:
        environment = kept | {"HOME": folder}  # Tune's results go there
        with ProcessorTime(os.getpid()) as processors:
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    return {"seconds_a_trial": told["seconds"] / TRIALS, **_processor_seconds(processors)}


def _ours(client: Client, name: str, *, tracked: bool) -> dict[str, float]:
    submitted = time.perf_counter()
    sweep = client.submit(SWEEP | {"name": name})
    with ProcessorTime(os.getpid()) as processors:
        for _ in client.watch(sweep["id"]):
            pass
    whole = time.perf_counter() - submitted
    ended = client.sweep(sweep["id"])
    assert (ended["state"], ended["counts"]) == ("completed", {"completed": TRIALS}), ended
    started, finished = (datetime.fromisoformat(ended[key]) for key in ("started_at", "finished_at"))
    wall = (finished - started).total_seconds()
    seconds = sum(one["metrics"]["seconds"] for one in client.measurements(sweep["id"]))
    found = {
        "seconds_a_trial": (wall - seconds / CONCURRENT) / TRIALS,
        "training_seconds_a_trial": seconds / TRIALS,
        "seconds_from_submission_to_end": whole,
        **_processor_seconds(processors),
    }
    if tracked:
        while (now := client.sweep(sweep["id"]))["tracked"] < now["last_event"]:
            time.sleep(0.05)
        found["seconds_until_mlflow_has_it_all"] = time.perf_counter() - submitted
    return found


def _processor_seconds(processors: ProcessorTime) -> dict[str, float]:
    """Of everything that ran for a sweep, from its submission to its end, over its trials."""
    roles = {name: seconds / TRIALS for name, seconds in processors.by_role().items() if name != "benchmark"}
    told = {f"processor_seconds_a_trial, {name}": seconds for name, seconds in sorted(roles.items())}
    return {"processor_seconds_a_trial": sum(roles.values()), **told}


@contextmanager
def _mlflow(home: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """An MLflow server as the embedded stack starts it: its address, and what ends it."""
    home.mkdir(parents=True)
    settings = Settings(home=home, mlflow_port=free_port())
    (program,) = [one for one in programs(settings) if one.name == "MLflow"]
    environment = os.environ | program.environment
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(program.command, env=environment, start_new_session=True, **quiet)

    def end() -> None:
        server.terminate()
        server.wait(timeout=30)

    try:
        with httpx.Client(trust_env=False) as client:
            wait_for(lambda: program.serves(client))
        yield settings.tracking_url, end
    finally:
        if server.poll() is None:
            end()


@contextmanager
def _stack(home: Path, mlflow: str) -> Iterator[Client]:
    """`sweepserve up` on this MLflow server."""
    runner = StackRunner(home)
    try:
        up = runner.command("up", SWEEPSERVE_MLFLOW_URL=mlflow)
        runner.read_until(up, "Ctrl-C ends it")
        with Client(runner.url) as client:
            yield client
    finally:
        runner.clear()


def _driver(size: int) -> dict[str, Any]:
    """Milliseconds a result, by database and by how many trials there are already."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driver-")))
        urls = {"SQLite": f"sqlite:///{folder}/sweepserve.db"}
        where = postgres_programs()
        if where is not None:
            server = Postgres(where, durable=True)
            stack.callback(server.clear)
            urls["PostgreSQL"] = server.migrated()
        for database, url in urls.items():
            store = stack.enter_context(closing(SqlStore(url)))
            store.migrate()
            found[database] = {f"{count} trials before": _results(store, count) for count in (0, size)}
            for name, one in found[database].items():
                told = {what: round(times["wall_ms"]["median"], 2) for what, times in one.items()}
                print(f"{database}, {name}: {told}", flush=True)
    return found


class _AtOnce:
    """A recorder that carries out each write before it returns, so that one clock meets both."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, write: Callable[[Store], object]) -> None:
        write(self._store)


def _results(store: SqlStore, before: int, *, count: int = 100) -> dict[str, Any]:
    """So many trials, after those before; the first of their results come to a connection that is there."""
    clock, folder = SystemClock(), Path(tempfile.gettempdir())
    of = spec(before, search={"sampler": "random"})
    sweep = Sweep(id=f"after{before}", name="driver", spec=of.to_dict(), created_at=datetime.now(UTC))
    trials, measurements = made_up(sweep.id, of, before)
    keep(store, sweep, trials, measurements)
    run = Run(
        sweep,
        of,
        trials=trials,
        measurements=measurements,
        folder=folder,
        data_root=folder,
        weights_root=folder,
        referenced_weights={},
        recorder=_AtOnce(store),
        disk=Settings(home=folder).disk,
        clock=clock,
    )
    samples: dict[str, list[tuple[float, float]]] = {"start": [], "result": [], "last result": []}
    for _ in range(count):
        settings, took = once(run.start)
        samples["start"].append(took)
        for step in range(1, STEPS + 1):
            ends, took = once(partial(run.report, settings["trial_id"], _report(settings["trial_id"], step)))
            samples["last result" if ends else "result"].append(took)
            if ends:
                break
    return {what: summary(taken) for what, taken in samples.items()}


def _report(trial_id: str, step: int) -> Report:
    metrics = {"validation/accuracy": 0.8 + 0.01 * step, **{f"metric/{i}": float(i) for i in range(15)}}
    return Report(
        step=step,
        metrics=metrics,
        checkpoint=f"/sweeps/{trial_id}/checkpoint-{step:06}",
        best_step=step,
        best_metrics=metrics,
        finished="max_epochs reached" if step == STEPS else None,
        diverged=False,
    )


if __name__ == "__main__":
    main()
