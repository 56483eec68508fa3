"""A real MLflow server, and a sweep in a store that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from search_spaces import merged
from service import tracking
from service.adapters.memory_store import MemoryStore
from service.adapters.mlflow_tracker import MlflowTracker
from service.domain import Measurement, Sweep, SweepState, Trial, TrialState
from service.settings import Settings
from service.spec import SweepSpec
from tests.ports import free_port
from trainables.saved_model import save_model

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"
SPEC = {
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 16},
    "fixed": {"model.channels": [8, 16, 16, 16]},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    "search": {"trials": 3},
}


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The URL of an MLflow server with its data in a folder, as the embedded stack starts it; ended afterwards."""
    port = free_port()
    options = {
        "port": port,
        "workers": 1,
        "backend-store-uri": f"sqlite:///{folder / 'mlflow.db'}",
        "artifacts-destination": folder / "artifacts",
        "uvicorn-opts": "--log-level warning",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(command, env={**os.environ, **quiet}, cwd=folder, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not _healthy(url):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield url
    finally:
        family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        for process in psutil.wait_procs(family, timeout=10)[1]:
            process.kill()
        server.wait(timeout=10)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


class ImpatientWay(ThreadingHTTPServer):
    """A way to an MLflow server that gives up on making a run, though the server makes it.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Carrier)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.client = httpx.Client(base_url=url, timeout=60)
        self.patient = True
        """Else it does not wait for the next run's making."""
        self.late = False
        """Runs that it does not wait for are made when `catch_up` is called, and else at once."""
        self._waiting: list[httpx.Request] = []

    def carry(self, request: httpx.Request) -> httpx.Response | None:
        """The server's answer; None: it was not waited for."""
        if self.patient or not request.url.path.endswith("/runs/create"):
            return self.client.send(request)
        self.patient = True
        self._waiting.append(request)
        if not self.late:
            self.catch_up()
        return None

    def catch_up(self) -> None:
        """The server makes the runs that were not waited for."""
        while self._waiting:
            self.client.send(self._waiting.pop()).raise_for_status()

    def server_close(self) -> None:
        super().server_close()
        self.client.close()


class _Carrier(BaseHTTPRequestHandler):
    server: ImpatientWay

    def do_GET(self) -> None:
        self._carry()

    def do_POST(self) -> None:
        self._carry()

    def do_PUT(self) -> None:
        self._carry()

    def _carry(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = {"Content-Type": self.headers.get("Content-Type", "text/plain")}
        request = self.server.client.build_request(self.command, self.path, content=body, headers=kind)
        answer = self.server.carry(request)
        if answer is not None:
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.end_headers()
            self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def impatient_way(url: str) -> Iterator[ImpatientWay]:
    """Such a way to that server."""
    with ImpatientWay(url) as way:
        thread = threading.Thread(target=way.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield way
        finally:
            way.shutdown()
            thread.join()


class Lab:
    """A sweep in a store, and what MLflow shows of it."""

    def __init__(self, settings: Settings, name: str, **changes: Any) -> None:
        self.settings, self.name = settings, name
        self.spec = SweepSpec.from_dict({**SPEC, "name": name, **changes})
        self.store, self.tracker = MemoryStore(), MlflowTracker(settings)
        self.client = MlflowClient(settings.tracking_url)
        self.id = f"{name:a>8}"[:8]
        self.now = NOW
        self.store.add_sweep(Sweep(id=self.id, name=name, spec=self.spec.to_dict(), created_at=self.at(), trace=TRACE))
        self.store.move_sweep(self.id, SweepState.RUNNING, at=self.at())

    def at(self) -> datetime:
        """A time of its own for each thing that happens."""
        self.now += timedelta(seconds=1)
        return self.now

    def trial(self, number: int, *, illegal: bool = False) -> str:
        place, repeat = divmod(number, self.spec.search.repeats)
        trial = Trial(
            id=f"{self.id}-{number:04}",
            sweep_id=self.id,
            number=number,
            repeat=repeat,
            point={"train.learning_rate": -1.0 if illegal else 0.001 * (place + 1)},
            created_at=self.at(),
        )
        self.store.add_trial(trial)
        return trial.id

    def measure(self, trial_id: str, step: int, **metrics: float) -> None:
        named = {f"validation/{name}": value for name, value in metrics.items()}
        self.store.add_measurement(Measurement(trial_id=trial_id, step=step, at=self.at(), metrics=named))

    def finish(self, trial_id: str, state: TrialState, value: float | None = None, reason: str = "") -> None:
        values = None if value is None else (value,)
        self.store.move_trial(trial_id, state, at=self.at(), values=values, reason=reason)

    def extend(self, trials: int, time_budget: str | None = None) -> None:
        changes = {"search": {"trials": trials}, "stop": {"time_budget": time_budget}}
        spec = SweepSpec.from_dict(merged(self.spec.to_dict(), changes)).to_dict()
        self.store.change_spec(self.id, spec, seen=self.store.sweep(self.id), at=self.at())

    def version(self, trial_id: str, value: float, path: Path) -> None:
        self.store.add_model_version(
            name=self.name, sweep_id=self.id, trial_id=trial_id, value=value, path=str(path), at=self.at()
        )

    def save(self, folder: Path) -> Path:
        """Saves a model with fresh weights there."""
        trial = self.spec.trial({"train.learning_rate": 0.001})
        dataset = trial.data.load(folder.with_name("data"))
        model = trial.model.build(input_shape=dataset.preprocessing.input_shape, outputs=dataset.task.outputs)
        save_model(folder, trial=trial, dataset=dataset, weights=model.state_dict(), step=1, metrics={})
        return folder

    def fill(self, saved: Path) -> None:
        """A whole sweep: two trials, a champion, pictures."""
        for number, value in enumerate((0.5, 0.7)):
            trial_id = self.trial(number)
            self.measure(trial_id, 1, accuracy=value)
            self.finish(trial_id, TrialState.COMPLETED, value)
            self.version(trial_id, value, saved)
        pictures = self.settings.pictures(self.id)
        pictures.mkdir(parents=True)
        (pictures / "learning_curves.png").write_bytes(b"picture")
        self.store.move_sweep(self.id, SweepState.COMPLETED, at=self.at())

    def another(self, sweep_id: str, path: Path) -> str:
        """Goes on with another sweep of the same name: its trial, whose model is the champion."""
        self.id = sweep_id
        self.store.add_sweep(Sweep(id=self.id, name=self.name, spec=self.spec.to_dict(), created_at=self.at()))
        trial_id = self.trial(0)
        self.version(trial_id, 0.5, path)
        return trial_id

    def delete(self, sweep_id: str) -> None:
        self.store.move_sweep(sweep_id, SweepState.DELETING, at=self.at())
        tracking.remove(self.store, self.tracker, sweeps_root=self.settings.sweeps_root)

    def champion(self) -> str:
        """The trial whose model has MLflow's alias, once all is shown."""
        tracking.drain(self.store, self.tracker)
        return str(self.client.get_model_version_by_alias(self.name, "champion").tags["sweepserve.trial"])

    def show(self, *, after: int = 0) -> None:
        self.tracker.track(self.store.sweep(self.id), self.store.events(self.id, after=after))

    def runs(self) -> list[Run]:
        """All runs, the parent first."""
        experiment = self.client.get_experiment_by_name(self.name)
        found = self.client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
        return sorted(found, key=lambda run: run.info.start_time)

    def everything(self) -> Any:
        """All that MLflow knows, for comparing."""
        runs = self.runs()
        history = {
            (run.info.run_id, name): repr(self.client.get_metric_history(run.info.run_id, name))
            for run in runs
            for name in run.data.metrics
        }
        models = self.client.search_model_versions(f"name = '{self.name}'")
        return [run.to_dictionary() for run in runs], history, [(m.version, m.tags, m.aliases) for m in models]
