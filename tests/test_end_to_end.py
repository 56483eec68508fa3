"""The real stack from nothing to predictions: `sweepserve demo` on a terminal, which then serves until Ctrl-C."""

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import pytest

from service.client import Client
from trainables.data.digits import Digits

pytestmark = pytest.mark.slow

STOPPED: dict[str, Any] = {
    "name": "stopped",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 32},
    "fixed": {"model.channels": [16, 32, 32, 32], "train.batch_size": 32, "train.max_epochs": 2},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-3, "high": 4e-3, "log": True}},
    "search": {"trials": 500},
    "stop": {"pruner": "none"},
}


class Terminal:
    """A program on a terminal of its own, where Ctrl-C reaches it as from a keyboard."""

    def __init__(self, *command: str, environment: Mapping[str, str]) -> None:
        self._keyboard, screen = pty.openpty()
        self.process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm", "COLUMNS": "120"},
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(screen)
        self.shown = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, text: str, *, within: float) -> None:
        """Returns once it has shown the text."""
        deadline = time.monotonic() + within
        while text not in self.shown:
            assert self.process.poll() is None, self.shown
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.05)

    def press_ctrl_c(self) -> None:
        """As a user does."""
        os.write(self._keyboard, b"\x03")

    def close(self) -> None:
        """Ends the program, if need be."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self._reader.join()
            os.close(self._keyboard)

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self._keyboard, 65536).decode(errors="replace")
            except OSError:  # nobody has the terminal open any more
                return


@pytest.fixture(scope="module")
def demo(shared_runner) -> Iterator[Terminal]:
    """The demo, shown and now serving; Ctrl-C ends it within ten seconds, and then no process of it is left."""
    terminal = Terminal(sys.executable, "-m", "service", "demo", environment=shared_runner.environment)
    try:
        terminal.wait_for("Ctrl-C ends it", within=240)
        yield terminal
        pressed = time.monotonic()
        terminal.press_ctrl_c()
        assert terminal.process.wait(20) == 0, terminal.shown
        assert time.monotonic() - pressed < 10
        assert shared_runner.left() == []
    finally:
        terminal.close()


@pytest.fixture(scope="module")
def client(demo: Terminal, shared_runner) -> Iterator[Client]:
    """Of the API that serves."""
    with Client(shared_runner.url) as made:
        yield made


@pytest.fixture(scope="module")
def sweep(client: Client) -> dict[str, Any]:
    """The demo's sweep, which it waited for to be in MLflow too."""
    (sweep,) = client.sweeps(name="quickstart")
    return client.sweep(sweep["id"])


@pytest.fixture(scope="module")
def mlflow(demo: Terminal, shared_runner) -> Any:
    """MLflow's own client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns of other packages, differently from version to version
        from mlflow import MlflowClient
    return MlflowClient(shared_runner.mlflow_url)


def test_the_demo_shows_a_model_that_reads_and_where_to_look(demo: Terminal, shared_runner) -> None:
    """At least 90 of 100 held-out images are read right, and every page to open is named."""
    right = re.search(r"(\d+) of 100 are right", demo.shown)
    assert right is not None
    assert int(right[1]) >= 90
    assert f"{shared_runner.url}/docs" in demo.shown
    assert f"{shared_runner.mlflow_url}/#/experiments/" in demo.shown


def test_the_sweep_completed_and_ranks_its_trials(client: Client, sweep: dict[str, Any]) -> None:
    """Every trial has ended; the leaderboard has the completed ones, best first."""
    assert sweep["state"] == "completed"
    trials = client.trials(sweep["id"])
    assert len(trials) == sweep["spec"]["search"]["trials"]
    board = client.leaderboard(sweep["id"])
    assert {trial["id"] for trial in board} == {trial["id"] for trial in trials if trial["state"] == "completed"}
    values = [trial["values"][0] for trial in board]
    assert values == sorted(values, reverse=True)
    assert sweep["best"]["id"] == board[0]["id"]


def test_mlflow_has_the_same_trials_and_the_same_best_value(client: Client, sweep: dict[str, Any], mlflow: Any) -> None:
    """Each trial is one run below the sweep's, in its state, with the value that the leaderboard ranks by."""
    runs = {run.data.tags["sweepserve.trial"]: run for run in _runs(mlflow, sweep)}
    trials = {trial["id"]: trial["state"] for trial in client.trials(sweep["id"])}
    assert len(_runs(mlflow, sweep)) == len(trials)
    assert {trial: run.data.tags["sweepserve.state"] for trial, run in runs.items()} == trials
    board = {trial["id"]: trial["values"][0] for trial in client.leaderboard(sweep["id"])}
    shown = {trial: run.data.metrics["objective"] for trial, run in runs.items() if "objective" in run.data.metrics}
    assert shown == board
    champion = mlflow.get_model_version_by_alias("quickstart", "champion")
    assert champion.tags["sweepserve.trial"] == sweep["best"]["id"]


def test_mlflow_has_every_measurement_once(client: Client, sweep: dict[str, Any], mlflow: Any) -> None:
    """Each metric of each trial has one value a step, the one that the store has."""
    kept = {
        (one["trial_id"], name, one["step"]): value
        for one in client.measurements(sweep["id"])
        for name, value in one["metrics"].items()
    }
    names = {name for _, name, _ in kept}
    assert "validation/accuracy" in names
    shown: Counter[tuple[str, str, int, float]] = Counter()
    for run in _runs(mlflow, sweep):
        for name in names:
            for metric in mlflow.get_metric_history(run.info.run_id, name):
                shown[run.data.tags["sweepserve.trial"], name, metric.step, metric.value] += 1
    assert shown == Counter({(*where, value): 1 for where, value in kept.items()})


def test_the_model_reads_held_out_images(client: Client, sweep: dict[str, Any], shared_runner) -> None:
    """At least 90 % of the test split, sent as PNG files, are read right, by the best trial's weights."""
    data = Digits().load(shared_runner.home / "data")
    images = [cv2.imencode(".png", image[0])[1].tobytes() for image in data.test.images[:200]]
    answer = client.predict("quickstart", images)
    right = [
        said["class"] == data.task.classes[target]
        for said, target in zip(answer["predictions"], data.test.targets, strict=False)
    ]
    assert len(right) == 200
    assert sum(right) >= 180
    assert answer["trial_id"] == sweep["best"]["id"]


def test_stop_ends_a_running_sweep_and_keeps_what_it_found(client: Client) -> None:
    """Within 15 s; finished trials stay finished, the others are stopped, and there is a model."""
    started = client.submit(STOPPED)
    deadline = time.monotonic() + 90
    while not client.leaderboard(started["id"]):
        assert time.monotonic() < deadline, "no trial completes"
        time.sleep(0.2)
    finished = {trial["id"]: trial for trial in client.leaderboard(started["id"])}
    asked = time.monotonic()
    client.stop(started["id"])
    for event in client.watch(started["id"]):
        assert event["kind"] != "sweep" or event["data"]["state"] != "failed"
    assert time.monotonic() - asked < 15
    assert client.sweep(started["id"])["state"] == "stopped"
    trials = {trial["id"]: trial for trial in client.trials(started["id"])}
    assert {trial["state"] for trial in trials.values()} <= {"completed", "stopped"}
    assert {trial: trials[trial] for trial in finished} == finished
    assert client.model("stopped")["versions"][0]["sweep_id"] == started["id"]


def _runs(mlflow: Any, sweep: dict[str, Any]) -> list[Any]:
    """The runs of the sweep's trials, below the run of the sweep."""
    experiment = mlflow.get_experiment_by_name(sweep["name"]).experiment_id
    runs = mlflow.search_runs([experiment], f"tags.`sweepserve.sweep` = '{sweep['id']}'")
    (parent,) = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
