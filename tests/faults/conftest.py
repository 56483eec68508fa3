"""A whole stack to hurt, and what must be true of a sweep whatever was done to it."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from service.adapters.sql_store import SqlStore
from service.client import Client, ClientError, NoAnswer
from service.settings import Settings
from tests.ports import free_port
from trainables import checkpoint

TIMES = 2 if os.environ.get("SWEEPSERVE_LONG_TESTS") else 1
"""How often each program dies in a sweep. Once is enough for every day; the long run hits what recovers, too."""
EPOCHS = 16 * TIMES
SPEC: Mapping[str, Any] = {
    "name": "hurt",
    "family": "narrow_resnet",
    "data": {"name": "digits", "train": 200, "validation": 100, "test": 50, "image_size": 16},
    "fixed": {"model.channels": [8, 16, 16, 16], "train.batch_size": 25, "train.max_epochs": EPOCHS},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-3, "high": 1e-2, "log": True}},
    "search": {"trials": 5, "seed": 3},
    "stop": {"pruner": "none"},
    "resources": {"max_concurrent": 2},
}
"""80 epochs or twice as many, two at a time on any machine: twice what a test needs to hurt it as often as it does."""

PROGRAMS: Mapping[str, Callable[[str, str], bool]] = {
    "API": lambda name, line: " -m service api" in line,
    "driver": lambda name, line: " -m service.driver" in line,
    "worker": lambda name, line: name.startswith("ray::") and "Trainable" in line,
    "MLflow": lambda name, line: "mlflow" in line and "server" in line,
    "Ray": lambda name, line: "raylet/raylet" in line or "gcs_server" in line,
}
"""How the processes of a stack are told apart, by name and command line."""


class Hurt:
    """A running stack, whose processes can be killed while a sweep runs."""

    MEASUREMENTS = SPEC["search"]["trials"] * EPOCHS
    TIMES = TIMES

    def __init__(self, runner: Any, **environment: str) -> None:
        self.runner = runner
        self.environment = environment
        self.client = Client(runner.url)
        self.store = SqlStore(environment.get("SWEEPSERVE_DATABASE") or Settings(home=runner.home).database_url)
        self.random = random.Random(int(os.environ.get("SWEEPSERVE_FAULT_SEED", "0")))
        self.killed: Counter[str] = Counter()
        self._serve()

    def _serve(self) -> None:
        self.up = self.runner.command("up", **self.environment)
        self.runner.read_until(self.up, "Ctrl-C ends it")

    def processes(self, program: str) -> list[psutil.Process]:
        """Those of one program that are alive."""
        found = []
        for process, line in self.runner.processes().items():
            with suppress(psutil.NoSuchProcess):
                if PROGRAMS[program](process.name(), line):
                    found.append(process)
        return found

    def kill(self, program: str, *, within: float = 60.0) -> None:
        """SIGKILL to every process of a program, or `everything`, once there is one; returns when they are gone."""
        if program == "everything":
            self._kill_everything()
            return
        deadline = time.monotonic() + within
        victims: list[psutil.Process] = []
        while not victims:
            assert time.monotonic() < deadline, f"no {program} to kill"
            for process in self.processes(program):
                with suppress(psutil.NoSuchProcess):  # it went by itself after another one of them
                    process.kill()
                    victims.append(process)
            time.sleep(0.05)
        self.until(lambda: not any(living(process) for process in victims), within=10)
        self.killed[program] += len(victims)

    def _kill_everything(self) -> None:
        """SIGKILL to the whole stack at once, its keeper first; then it is started again on the same home."""
        victims = [psutil.Process(self.up.pid), *self.runner.processes()]
        for process in victims:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert psutil.wait_procs(victims, timeout=10)[1] == []
        self.up.communicate()
        self.killed["everything"] += 1
        self._serve()

    def ask(self, question: Callable[[Client], Any], *, within: float = 60.0) -> Any:
        """The answer of the API, which may be down for a while."""
        deadline = time.monotonic() + within
        while True:
            try:
                return question(self.client)
            except ClientError as error:
                if not isinstance(error, NoAnswer) and error.status != httpx.codes.SERVICE_UNAVAILABLE:
                    raise
                assert time.monotonic() < deadline, "the API does not come back"
                time.sleep(0.2)

    def sweep(self, name: str, *, epochs: int = EPOCHS) -> str:
        """A new sweep, submitted; its id."""
        fixed = {**SPEC["fixed"], "train.max_epochs": epochs}
        return str(self.ask(lambda client: client.submit({**SPEC, "name": name, "fixed": fixed}))["id"])

    def until(self, happened: Callable[[], bool], *, within: float = 120.0) -> None:
        """Returns once it has happened."""
        deadline = time.monotonic() + within
        while not happened():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.1)

    def until_measured(self, sweep_id: str, count: int, *, within: float = 90.0) -> None:
        """Returns once the sweep has that many measurements more than now."""
        deadline = time.monotonic() + within
        wanted = self.measured(sweep_id) + count
        while self.measured(sweep_id) < wanted:
            assert time.monotonic() < deadline, f"the sweep does not go on: {self.ask(lambda c: c.sweep(sweep_id))}"
            time.sleep(0.05)

    def measured(self, sweep_id: str) -> int:
        """How many measurements the store has, also while the API is down: the sweep goes on without it."""
        return len(self.store.measurements(sweep_id))

    def until_some_moment(self, sweep_id: str) -> None:
        """Returns after up to ten seconds or up to four measurements: while trials train, or while all recovers."""
        deadline = time.monotonic() + self.random.uniform(0, 10)
        wanted = self.measured(sweep_id) + self.random.randint(1, 4)
        while self.measured(sweep_id) < wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(self.random.uniform(0, 0.1))  # not always just after an epoch

    def close(self) -> None:
        """Drops the connections of this process."""
        self.client.close()
        self.store.close()

    def until_ended(self, sweep_id: str, *, within: float = 240.0) -> dict[str, Any]:
        """The sweep, once it has ended and MLflow has all of it."""
        deadline = time.monotonic() + within
        while True:
            sweep: dict[str, Any] = self.ask(lambda client: client.sweep(sweep_id))
            if sweep["finished_at"] is not None and sweep["tracked"] == sweep["last_event"]:
                return sweep
            assert time.monotonic() < deadline, sweep
            time.sleep(0.1)

    def assert_nothing_is_lost(self, sweep_id: str, undisturbed: list[dict[str, Any]] | None = None) -> None:
        """The sweep ended by itself with the trials asked for; each epoch is in the store and in MLflow once."""
        sweep = self.until_ended(sweep_id)
        assert sweep["state"] == "completed", sweep["reason"]
        client = self.client
        trials = client.trials(sweep_id)
        epochs = sweep["spec"]["fixed"]["train.max_epochs"]
        assert [trial["number"] for trial in trials] == list(range(SPEC["search"]["trials"]))
        assert {trial["state"] for trial in trials} == {"completed"}, [trial["reason"] for trial in trials]
        kept = client.measurements(sweep_id)
        steps = Counter((one["trial_id"], one["step"]) for one in kept)
        assert steps == Counter({(trial["id"], step): 1 for trial in trials for step in range(1, epochs + 1)})
        for trial in trials:
            self._assert_no_epoch_was_trained_twice(trial, kept)
        self._assert_mlflow_has_the_same(sweep, kept)
        if undisturbed is None:
            return
        assert [trial["point"] for trial in trials] == [trial["point"] for trial in undisturbed]
        values = [trial["values"] for trial in undisturbed]
        assert [trial["values"] for trial in trials] == values, "interrupted training gives the same weights"

    def _assert_no_epoch_was_trained_twice(self, trial: dict[str, Any], kept: list[dict[str, Any]]) -> None:
        """The last checkpoint remembers how long each epoch took: as long as was reported when it was trained."""
        folder = self.runner.home / "sweeps" / trial["sweep_id"] / "trials" / trial["id"]
        path = checkpoint.latest(folder)
        if path is None:  # not one of the best, and so removed
            return
        history = checkpoint.read(path).history
        reported = {one["step"]: one["metrics"]["seconds"] for one in kept if one["trial_id"] == trial["id"]}
        assert {step: metrics["seconds"] for step, metrics in history.items()} == pytest.approx(reported)

    def _assert_mlflow_has_the_same(self, sweep: dict[str, Any], kept: list[dict[str, Any]]) -> None:
        """One run a trial, and one value a step of each metric, through MLflow's own REST API."""
        with httpx.Client(base_url=f"{self.runner.mlflow_url}/api/2.0/mlflow", timeout=30) as mlflow:
            experiment = mlflow.get("/experiments/get-by-name", params={"experiment_name": sweep["name"]}).json()
            query = {
                "experiment_ids": [experiment["experiment"]["experiment_id"]],
                "filter": f"tags.`sweepserve.sweep` = '{sweep['id']}'",
                "max_results": 100,
            }
            runs = mlflow.post("/runs/search", json=query).json()["runs"]
            by_trial = {}
            for run in runs:
                tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
                if "sweepserve.trial" in tags:
                    assert tags["sweepserve.trial"] not in by_trial, "two runs of one trial"
                    assert run["info"]["status"] == "FINISHED"
                    by_trial[tags["sweepserve.trial"]] = run["info"]["run_id"]
            assert len(runs) == len(by_trial) + 1
            for trial_id, run_id in by_trial.items():
                query = {"run_id": run_id, "metric_key": "train/loss", "max_results": 1000}
                shown = mlflow.get("/metrics/get-history", params=query).json()["metrics"]
                steps = {int(metric["step"]): metric["value"] for metric in shown}
                assert len(shown) == len(steps)
                assert steps == {
                    one["step"]: one["metrics"]["train/loss"] for one in kept if one["trial_id"] == trial_id
                }


def living(process: psutil.Process) -> bool:
    """It runs, and is not merely waiting for its parent to notice its death."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Gate:
    """A way to a server that can be shut: connections are refused, or taken and their answers held back.

    Args:
        port: where the server will listen, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener: socket.socket | None = None
        self.port = free_port()
        self.answering = threading.Event()
        self.held = 0
        """Answers that had to wait."""

    def open(self) -> None:
        """From now on connections are taken."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """From now on they are refused."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.answering.set()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                with suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", self._upstream))
                    for source, sink, answers in ((client, server, False), (server, client, True)):
                        threading.Thread(target=self._carry, args=(source, sink, answers), daemon=True).start()
                    continue
                client.close()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and not self.answering.is_set():
                    self.held += 1
                    self.answering.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture(name="stack", scope="module")
def _stack(shared_runner: Any) -> Iterator[Hurt]:
    """One stack for all tests of a file: it must survive each of them."""
    hurt = Hurt(shared_runner)
    yield hurt
    hurt.close()


@pytest.fixture(name="undisturbed", scope="module")
def _undisturbed(stack: Hurt) -> list[dict[str, Any]]:
    """The trials of the same sweep that nobody hurt."""
    sweep_id = stack.sweep("undisturbed")
    assert stack.until_ended(sweep_id)["state"] == "completed"
    trials: list[dict[str, Any]] = stack.client.trials(sweep_id)
    return trials
