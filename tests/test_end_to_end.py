"""The real stack from nothing to predictions: `sweepserve demo` on a terminal, which then serves until Ctrl-C."""

import fcntl
import ipaddress
import json
import os
import pty
import re
import secrets
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import cv2
import httpx
import psutil
import pytest

from service.client import Client
from service.programs import ray_folder
from trainables.data.digits import Digits

pytestmark = pytest.mark.slow

RAY_TOKEN = "Ray's token"

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
def planted(shared_runner) -> dict[str, str]:
    """Secrets that the stack is given, by what they are: nothing that it leaves may hold them."""
    creating = shared_runner.command("keys", "create", "planted", "--scope", "admin")
    key, _ = creating.communicate(timeout=60)
    token = shared_runner.home / "ray" / "token"
    token.parent.mkdir(parents=True)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return {
        "the user's API key": key.strip(),
        "the database's password": secrets.token_hex(16),
        RAY_TOKEN: token.read_text(),
    }


@pytest.fixture(scope="module")
def demo(shared_runner, planted: dict[str, str]) -> Iterator[Terminal]:
    """The demo, shown and now serving; Ctrl-C ends it within ten seconds, and then no process of it is left."""
    given = {
        "SWEEPSERVE_API_KEY": planted["the user's API key"],
        "PGPASSWORD": planted["the database's password"],
        "SWEEPSERVE_JSON_LOGS": "true",
        "SWEEPSERVE_URL": "http://127.0.0.1:9",  # of other commands; the demo asks its own stack
        "HOME": str(shared_runner.home.with_name("user")),
    }
    shared_runner.home.with_name("user").mkdir()
    terminal = Terminal(sys.executable, "-m", "service", "demo", environment={**shared_runner.environment, **given})
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
    board = _ranked(client, sweep["id"])
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
    board = {trial["id"]: trial["values"][0] for trial in _ranked(client, sweep["id"])}
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
    finished = {trial["id"]: trial for trial in _ranked(client, started["id"])}
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


def test_a_request_is_followed_to_mlflow(client: Client, sweep: dict[str, Any], mlflow: Any, shared_runner) -> None:
    """The trace of the submission is in the audit, in the driver's log and in the tags of every run."""
    (deed,) = [deed for deed in client.deeds() if deed["subject"] == f"/v1/sweeps/{sweep['id']}"]
    assert deed["actor"].endswith("(planted)")
    lines = [json.loads(line) for line in client.logs(sweep["id"]).splitlines() if line.startswith("{")]
    assert {line["trace_id"] for line in lines} == {deed["trace_id"]}
    traced = {run.data.tags["sweepserve.traceparent"].split("-")[1] for run in _runs(mlflow, sweep)}
    assert traced == {deed["trace_id"]}


def test_everything_listens_on_loopback_only(demo: Terminal, shared_runner) -> None:
    """API, MLflow, and whatever Ray opens on ports that nobody chose."""
    listening = set()
    for process in psutil.Process(demo.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # workers come and go
            listening |= {
                (connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    assert len(listening) >= 3
    addresses = {ipaddress.ip_address(host) for host, _ in listening}
    assert all((getattr(one, "ipv4_mapped", None) or one).is_loopback for one in addresses), addresses


def test_ray_asks_for_its_token_and_mlflow_for_its_name(demo: Terminal, shared_runner, planted: dict[str, str]) -> None:
    """Who only reaches their ports can run no job, and a page of another site cannot read runs."""
    jobs = f"http://127.0.0.1:{shared_runner.environment['SWEEPSERVE_DASHBOARD_PORT']}/api/jobs/"
    job = {"entrypoint": "touch /tmp/sweepserve-was-here"}
    assert httpx.get(jobs).status_code == 401
    assert httpx.post(jobs, json=job).status_code == 401
    assert httpx.post(jobs, json=job, headers={"Authorization": "Bearer nonsense"}).status_code in (401, 403)
    token = {"Authorization": f"Bearer {planted[RAY_TOKEN]}"}
    assert httpx.get(jobs, headers=token).is_success
    search = f"{shared_runner.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(search).is_success
    assert httpx.get(search, headers={"Host": "evil.example"}).status_code == 403


def test_no_secret_is_left_anywhere(
    client: Client, demo: Terminal, sweep: dict[str, Any], shared_runner, planted: dict[str, str]
) -> None:
    """Not in a file, not in what was printed, in no answer of the API or of Ray, in no process's command line."""
    token_file = shared_runner.home / "ray" / "token"
    places = {"what was printed": demo.shown.encode(), "command lines": "\n".join(shared_runner.left()).encode()}
    for folder in (shared_runner.home, ray_folder(shared_runner.home)):
        for path in folder.rglob("*"):
            if path.is_file() and path != token_file:
                places[str(path)] = path.read_bytes()
    with httpx.Client(headers={"Authorization": f"Bearer {planted[RAY_TOKEN]}"}) as asking:
        dashboard = f"http://127.0.0.1:{shared_runner.environment['SWEEPSERVE_DASHBOARD_PORT']}"
        for url in (
            f"{dashboard}/api/jobs/",
            f"{dashboard}/api/v0/actors?detail=1",
            f"{dashboard}/api/v0/workers?detail=1",
        ):
            places[url] = asking.get(url).content
        for path in ("", "/events", "/logs", "/measurements"):
            places[path or "the sweep"] = asking.get(
                f"{shared_runner.url}/v1/sweeps/{sweep['id']}{path}", headers={"Authorization": ""}
            ).content
        places["metrics"] = asking.get(f"{shared_runner.url}/metrics", headers={"Authorization": ""}).content
    # That the search finds what there is: the sweep's id, of which all are full.
    assert sum(sweep["id"].encode() in content for content in places.values()) > 20
    for what, secret in planted.items():
        secret = secret.rpartition("_")[2]
        assert [place for place, content in places.items() if secret.encode() in content] == [], what


def test_a_users_home_keeps_nothing_but_caches(demo: Terminal, sweep: dict[str, Any], shared_runner) -> None:
    """No library leaves an id for its statistics there."""
    user = shared_runner.home.with_name("user")
    kept = {path.relative_to(user).as_posix() for path in user.glob("*/*")}
    assert kept <= {".cache/matplotlib", ".config/matplotlib"}


def _ranked(client: Client, sweep_id: str) -> list[dict[str, Any]]:
    """The completed trials of a sweep without repeats, best first."""
    return [trial for point in client.leaderboard(sweep_id) for trial in point["trials"]]


def _runs(mlflow: Any, sweep: dict[str, Any]) -> list[Any]:
    """The runs of the sweep's trials, below the run of the sweep."""
    experiment = mlflow.get_experiment_by_name(sweep["name"]).experiment_id
    runs = mlflow.search_runs([experiment], f"tags.`sweepserve.sweep` = '{sweep['id']}'")
    (parent,) = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
