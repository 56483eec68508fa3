"""`sweepserve api` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.ports import free_port


@pytest.mark.slow
def test_the_api_runs_alone_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    """`sweepserve api` on an empty home: it serves, says that there is no Ray, and ends within seconds of SIGTERM."""
    port = free_port()
    settings = Settings(
        home=tmp_path / "home", port=port, ray_url="http://127.0.0.1:9", mlflow_url="http://127.0.0.1:9"
    )
    environment = {**os.environ, **settings.to_environment()}
    command = [sys.executable, "-m", "service", "api"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _wait_until_it_serves(f"{settings.api_url}/healthz", process)
        parts = httpx.get(f"{settings.api_url}/readyz").json()["parts"]
        assert parts["store"] == "ok"
        assert parts["cluster"].startswith("Ray at http://127.0.0.1:9 does not answer")
        assert _fastest(f"{settings.api_url}/healthz") < 0.035  # 40 ms would be Nagle's algorithm
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        taken = f"port {port} of 127.0.0.1: address already in use; set SWEEPSERVE_PORT to a free one"
        assert (second.returncode, second.stderr.splitlines()[-1]) == (1, f"sweepserve: {taken}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) in (0, -signal.SIGTERM)
        assert "Traceback" not in (process.stdout.read() if process.stdout else "")
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_who_asks_is_told_by_the_proxies_that_the_environment_names(tmp_path: Path) -> None:
    """Others can claim whatever address they like: their bad keys are counted as theirs."""
    settings = Settings(home=tmp_path, port=free_port(), ray_url="http://127.0.0.1:9", mlflow_url="http://127.0.0.1:9")
    environment = {**os.environ, **settings.to_environment(), "FORWARDED_ALLOW_IPS": "192.0.2.0/24"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "api"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_until_it_serves(f"{settings.api_url}/healthz", process)
        with httpx.Client(base_url=settings.api_url, headers={"Authorization": "Bearer nonsense"}) as http:
            claims = [{"X-Forwarded-For": f"198.51.100.{number}"} for number in range(130)]
            statuses = [http.get("/v1/sweeps", headers=claim).status_code for claim in claims]
        assert set(statuses) == {401, 429}
    finally:
        process.kill()
        process.communicate()


def _fastest(url: str) -> float:
    """Seconds of the fastest of ten requests on one connection."""
    spent = []
    with httpx.Client() as client:
        for _ in range(10):
            began = time.perf_counter()
            client.get(url)
            spent.append(time.perf_counter() - began)
    return min(spent)


def _wait_until_it_serves(url: str, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.1)  # a real process
    pytest.fail(f"{url} did not answer within a minute")
