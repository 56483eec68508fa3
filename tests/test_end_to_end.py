"""The real stack, from a POST to predictions: one for the whole file, ended by Ctrl-C as a user would."""

import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import cv2
import pytest

from service.client import Client
from trainables.data.digits import Digits

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {
    "name": "end-to-end",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 32},
    "fixed": {"model.channels": [16, 32, 32, 32], "train.batch_size": 32, "train.max_epochs": 4},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-3, "high": 4e-3, "log": True}},
    "search": {"trials": 4},
    "stop": {"pruner": "none"},
}


@pytest.fixture(scope="module")
def client(shared_runner) -> Iterator[Client]:
    """Of a stack that serves; afterwards no process of it is left."""
    up = shared_runner.command("up")
    printed = shared_runner.read_until(up, "Ctrl-C ends it")
    assert shared_runner.mlflow_url in printed
    with Client(shared_runner.url) as made:
        yield made
    began = time.monotonic()
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert up.returncode == 0
    assert shared_runner.left() == []


@pytest.fixture(scope="module")
def sweep(client: Client) -> dict[str, Any]:
    """A small sweep, watched to its end, and shown in MLflow."""
    sweep = client.submit(SPEC)
    for event in client.watch(sweep["id"]):
        assert event["data"].get("state") != "failed", event
    deadline = time.monotonic() + 60
    while (sweep := client.sweep(sweep["id"]))["tracked"] < sweep["last_event"]:
        assert time.monotonic() < deadline, "MLflow lags behind"
        time.sleep(0.1)
    return sweep


@pytest.fixture(scope="module")
def mlflow(shared_runner, sweep) -> Any:
    """MLflow's own client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns of other packages, differently from version to version
        from mlflow import MlflowClient
    return MlflowClient(shared_runner.mlflow_url)


def test_the_sweep_completes_every_trial(client: Client, sweep: dict[str, Any]) -> None:
    """Watching ends with the sweep; its leaderboard has every trial, best first."""
    assert sweep["state"] == "completed"
    board = client.leaderboard(sweep["id"])
    values = [trial["values"][0] for trial in board]
    assert len(board) == SPEC["search"]["trials"]
    assert values == sorted(values, reverse=True)
    assert sweep["best"]["id"] == board[0]["id"]


def test_mlflow_has_the_same_trials_and_the_same_best_value(client: Client, sweep: dict[str, Any], mlflow: Any) -> None:
    """Each trial is one run below the sweep's, with the value that the leaderboard ranks by."""
    board = {trial["id"]: trial["values"][0] for trial in client.leaderboard(sweep["id"])}
    runs = _runs(mlflow, sweep)
    assert {run.data.tags["sweepserve.trial"]: run.data.metrics["objective"] for run in runs} == board
    assert len(runs) == len(board)
    (version,) = [mlflow.get_model_version_by_alias(SPEC["name"], "champion")]
    assert version.tags["sweepserve.trial"] == max(board, key=lambda trial: board[trial])


def test_mlflow_has_every_measurement_once(client: Client, sweep: dict[str, Any], mlflow: Any) -> None:
    """Each metric of each trial has one value a step, the one that the store has."""
    kept = {
        (one["trial_id"], name, one["step"]): value
        for one in client.measurements(sweep["id"])
        for name, value in one["metrics"].items()
    }
    assert {step for _, _, step in kept} == {1, 2, 3, 4}
    shown: Counter[tuple[str, str, int, float]] = Counter()
    for run in _runs(mlflow, sweep):
        for name in {name for _, name, _ in kept}:
            for metric in mlflow.get_metric_history(run.info.run_id, name):
                shown[run.data.tags["sweepserve.trial"], name, metric.step, metric.value] += 1
    assert shown == Counter({(*where, value): 1 for where, value in kept.items()})


def test_the_model_reads_held_out_images(client: Client, sweep: dict[str, Any], shared_runner) -> None:
    """At least 90 % of the test split, sent as PNG files, are read right."""
    data = Digits().load(shared_runner.home / "data")
    images = [cv2.imencode(".png", image[0])[1].tobytes() for image in data.test.images[:200]]
    answer = client.predict(sweep["name"], images)
    right = [
        said["class"] == data.task.classes[target]
        for said, target in zip(answer["predictions"], data.test.targets, strict=False)
    ]
    assert len(right) == 200
    assert sum(right) >= 180
    assert answer["trial_id"] == sweep["best"]["id"]


def test_stop_ends_a_running_sweep_and_keeps_what_it_found(client: Client) -> None:
    """Within 15 s; finished trials stay finished, the others are stopped, and there is a model."""
    fixed = {**SPEC["fixed"], "train.max_epochs": 2}
    started = client.submit({**SPEC, "name": "stopped", "fixed": fixed, "search": {"trials": 500}})
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
    """The runs of the sweep's trials."""
    experiment = mlflow.get_experiment_by_name(sweep["name"])
    (parent,) = mlflow.search_runs(
        [experiment.experiment_id], f"tags.`sweepserve.sweep` = '{sweep['id']}' AND run_name LIKE '{sweep['name']}%'"
    )
    return list(mlflow.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"))
