"""What the service depends on goes away while a sweep runs: MLflow, and the database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.client import ClientError

pytestmark = pytest.mark.slow


def test_mlflow_is_absent_then_silent_and_has_everything_in_the_end(
    start_stack: Callable[..., Any], gate: Any, runner: Any
) -> None:
    """Absent from the start to the middle of a sweep, then silent (requests arrive, answers do not) to its end."""
    stack = start_stack(SWEEPSERVE_MLFLOW_URL=f"http://127.0.0.1:{gate.port}")
    host, port = runner.mlflow_url.removeprefix("http://").split(":")
    backend = f"sqlite:///{runner.home}/late.db"
    options = ["--host", host, "--port", port, "--backend-store-uri", backend, "--serve-artifacts", "--workers", "1"]
    options += ["--artifacts-destination", str(runner.home / "late-artifacts")]
    mlflow = subprocess.Popen(
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
    try:
        stack.until(lambda: answers(f"{runner.mlflow_url}/health"))
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
    finally:
        mlflow.terminate()
        mlflow.wait(20)


def answers(url: str) -> bool:
    """There is a server that says yes."""
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_the_database_is_restarted(start_stack: Callable[..., Any], postgres: Any) -> None:
    """PostgreSQL stops at once, twice in a sweep, and comes back: what was measured meanwhile is written then."""
    stack = start_stack(SWEEPSERVE_DATABASE=postgres.database())
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
