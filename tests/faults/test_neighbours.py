"""What the service depends on goes away while a sweep runs: MLflow, and the database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.client import ClientError
from tests.conftest import postgres_programs
from tests.faults.conftest import Gate, Hurt

pytestmark = pytest.mark.slow


@pytest.fixture(name="gate", scope="module")
def _gate(shared_runner: Any) -> Iterator[Gate]:
    """The way to MLflow, shut."""
    made = Gate(int(shared_runner.mlflow_url.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture(name="database", scope="module")
def _database(request: pytest.FixtureRequest) -> str:
    """The URL of a database on a server that can be stopped; empty, for that of the home, where there is none."""
    return "" if postgres_programs() is None else str(request.getfixturevalue("postgres").database())


@pytest.fixture(name="stack", scope="module")
def _stack(shared_runner: Any, gate: Gate, database: str) -> Iterator[Hurt]:
    """A stack between these two."""
    url = f"http://127.0.0.1:{gate.port}"
    hurt = Hurt(shared_runner, SWEEPSERVE_MLFLOW_URL=url, SWEEPSERVE_DATABASE=database)
    mlflow = start_mlflow(shared_runner)
    hurt.until(lambda: answers(f"{shared_runner.mlflow_url}/health"))
    yield hurt
    hurt.close()
    mlflow.terminate()
    mlflow.wait(20)


def start_mlflow(runner: Any) -> subprocess.Popen[bytes]:
    """A server behind the gate; it ends with the runner at the latest."""
    host, port = runner.mlflow_url.removeprefix("http://").split(":")
    options = ["--host", host, "--port", port, "--backend-store-uri", f"sqlite:///{runner.home}/late.db"]
    options += ["--artifacts-destination", str(runner.home / "late-artifacts"), "--serve-artifacts", "--workers", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options],
        env={
            **runner.environment,
            "_SWEEPSERVE_STACK": str(runner.home),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def answers(url: str) -> bool:
    """There is a server that says yes."""
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_mlflow_is_absent_then_silent_and_has_everything_in_the_end(stack: Hurt, gate: Gate) -> None:
    """Absent from the start to the middle of a sweep, then silent (requests arrive, answers do not) to its end."""
    sweep_id = stack.sweep("without-mlflow", epochs=16)
    stack.until_measured(sweep_id, 10)
    assert stack.ask(lambda client: client.sweep(sweep_id))["tracked"] == 0
    gate.open()
    stack.until(lambda: gate.held > 0)
    assert stack.ask(lambda client: client.sweep(sweep_id))["state"] == "running"
    stack.until(lambda: stack.ask(lambda client: client.sweep(sweep_id))["state"] == "completed")
    assert stack.ask(lambda client: client.sweep(sweep_id))["tracked"] == 0
    gate.answering.set()
    stack.assert_nothing_is_lost(sweep_id)


def test_the_database_is_restarted(stack: Hurt, gate: Gate, postgres: Any) -> None:
    """PostgreSQL stops at once, twice in a sweep, and comes back: what was measured meanwhile is written then."""
    gate.answering.set()
    gate.open()
    sweep_id = stack.sweep("restarted", epochs=14)
    for _ in range(2):
        stack.until_measured(sweep_id, 8)
        postgres.stop()
        try:
            with pytest.raises(ClientError, match="the database does not answer"):
                stack.client.sweep(sweep_id)
        finally:
            postgres.start()  # other tests have their databases there
    stack.assert_nothing_is_lost(sweep_id)
