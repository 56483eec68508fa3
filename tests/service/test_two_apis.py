"""Two API processes over one database: requests that race make one sweep, and one process at a time acts for both."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from service.adapters.sql_store import SqlStore

pytestmark = pytest.mark.slow
SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}}
ROUNDS, COPIES = 5, 6


class Api:
    """An API process, with what it prints."""

    def __init__(self, runner: Any, url: str, port: str) -> None:
        self.process = runner.command("api", SWEEPSERVE_DATABASE=url, SWEEPSERVE_PORT=port)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        self.lines: list[str] = []
        threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True).start()

    @property
    def answers(self) -> bool:
        """It serves."""
        assert self.process.poll() is None, "".join(self.lines)
        try:
            return self.http.get("/v1/sweeps").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    @property
    def acts(self) -> bool:
        """It took the lease, and nobody has taken it from it."""
        said = [line for line in self.lines if "acts for all from now on" in line]
        return bool(said) and "this process" in said[-1]


def until(happened: Callable[[], bool], *, within: float = 60.0) -> None:
    """Returns once it has happened."""
    deadline = time.monotonic() + within
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.1)  # real processes


def test_two_processes_share_a_store(request: pytest.FixtureRequest, runner: Any) -> None:
    """Copies of a submission race in both; then the one that acts is killed (SIGKILL), and the other one acts."""
    url = f"sqlite:///{runner.home}/store.db"
    apis = [Api(runner, url, address.rpartition(":")[2]) for address in (runner.url, runner.mlflow_url)]
    for api in apis:
        request.addfinalizer(api.http.close)
    until(lambda: all(api.answers for api in apis), within=120)
    with closing(SqlStore(url)) as store:
        for round_ in range(ROUNDS):
            race(apis, f"key {round_}")
            assert len(store.sweeps()) == round_ + 1
    until(lambda: any(api.acts for api in apis))
    (first,) = (api for api in apis if api.acts)
    (second,) = (api for api in apis if api is not first)
    assert not second.acts
    first.process.kill()
    assert first.process.wait() == -signal.SIGKILL
    until(lambda: second.acts)
    assert second.answers


def race(apis: list[Api], key: str) -> None:
    """The same submission many times at once, to both: every answer is the same sweep, or that it is being made."""
    start = threading.Barrier(2 * COPIES)

    def post(number: int) -> tuple[int, float, httpx.Response, float]:
        start.wait()
        began = time.monotonic()
        answer = apis[number % 2].http.post("/v1/sweeps", json=SPEC, headers={"Idempotency-Key": key})
        return number % 2, began, answer, time.monotonic()

    with ThreadPoolExecutor(2 * COPIES) as threads:
        got = list(threads.map(post, range(2 * COPIES)))
    for which, _, answer, _ in got:
        assert answer.status_code in (httpx.codes.ACCEPTED, httpx.codes.CONFLICT), "".join(apis[which].lines)
    assert len({answer.json()["id"] for _, _, answer, _ in got if answer.status_code == httpx.codes.ACCEPTED}) == 1
    asked = [[(begun, ended) for api, begun, _, ended in got if api == which] for which in (0, 1)]
    assert any(a < d and c < b for a, b in asked[0] for c, d in asked[1]), "requests to both were under way at once"
