"""The launcher against a real Ray head, and against addresses where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from service.adapters.ray_jobs import RayJobs
from service.api.server import _ray
from service.errors import Unavailable
from service.port_values import Job
from service.settings import Settings
from tests.ports import free_port

TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


@dataclass(frozen=True)
class Head:
    url: str
    token_path: Path
    folder: Path
    """Where it was started, with a `service/driver.py` of the test's own in it."""


DRIVER = """
import os, sys, time
where, trace = os.environ["SWEEPSERVE_HOME"], os.environ.get("TRACEPARENT", "")
print("driver", sys.argv[2], "of", sys.argv[1], "at", where, trace, flush=True)
if sys.argv[1] == "long":
    time.sleep(600)
sys.exit(3 if sys.argv[1] == "bad" else 0)
"""


@pytest.fixture(scope="module", name="head")
def _head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # Ray's socket paths must stay below 108 characters
    (folder / "service").mkdir()
    (folder / "service" / "__init__.py").touch()
    (folder / "service" / "driver.py").write_text(DRIVER)
    token = folder / "token"
    token.write_text(secrets.token_hex(32) + "\n")
    dashboard = free_port()
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=1",
        "--object-store-memory=80000000", "--disable-usage-stats", f"--temp-dir={folder}",
        f"--port={free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={free_port()}",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "SWEEPSERVE_HOME": str(folder / "home"),
        "PYTHONPATH": str(folder),
    }
    with (folder / "head.log").open("wb") as log:
        block = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        jobs = RayJobs(f"http://127.0.0.1:{dashboard}", token_path=token)
        _wait_until(lambda: "CPU" in _resources(jobs), 60, "the Ray head is up")
        jobs.close()
        yield Head(f"http://127.0.0.1:{dashboard}", token, folder)
    finally:
        _end(block, folder)
        shutil.rmtree(folder)


def _resources(jobs: RayJobs) -> dict[str, float]:
    with contextlib.suppress(Unavailable):
        return dict(jobs.resources())
    return {}


def _wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    for _ in range(int(seconds / 0.1)):
        if true():
            return
        time.sleep(0.1)  # real processes: there is no clock of ours to move
    pytest.fail(f"not within {seconds} s: {what}")


def _end(block: subprocess.Popen[bytes], folder: Path) -> None:
    """Ends the head and all that it started, each by its id."""
    children = psutil.Process(block.pid).children(recursive=True) if block.poll() is None else []
    block.terminate()
    mine = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or ())]
    _, alive = psutil.wait_procs([*children, *mine], timeout=5)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    block.wait(10)


@pytest.fixture(name="jobs")
def _jobs(head: Head) -> Iterator[RayJobs]:
    jobs = RayJobs(head.url, token_path=head.token_path)
    yield jobs
    jobs.close()


def _finished(jobs: RayJobs, sweep_id: str, attempt: int = 1) -> Job:
    _wait_until(lambda: not jobs.job(sweep_id, attempt).alive, 30, f"the driver of {sweep_id} ended")
    return jobs.job(sweep_id, attempt)


@pytest.mark.slow
def test_a_driver_runs_with_the_heads_environment_and_its_output_is_kept(head: Head, jobs: RayJobs) -> None:
    """The driver finds the settings where the head was given them; its job ends as succeeded with its log."""
    jobs.launch("good", 1, trace=TRACE)
    assert _finished(jobs, "good").state == "succeeded"
    assert f"driver 1 of good at {head.folder / 'home'} {TRACE}" in jobs.logs("good", 1)
    headers = {"Authorization": f"Bearer {head.token_path.read_text().strip()}"}
    known = httpx.get(f"{head.url}/api/jobs/sweep-good-1", headers=headers).json()
    assert known["metadata"] == {"sweep": "good", "attempt": "1", "traceparent": TRACE}


@pytest.mark.slow
def test_launching_an_attempt_again_starts_nothing(jobs: RayJobs) -> None:
    """A reconciler that lost the answer asks again; the driver must not run twice, but a new attempt does run."""
    jobs.launch("twice", 1)
    _finished(jobs, "twice")
    jobs.launch("twice", 1)
    assert jobs.logs("twice", 1).count("driver 1 of twice") == 1
    assert jobs.job("twice", 2).state == "missing"
    jobs.launch("twice", 2)
    assert _finished(jobs, "twice", 2).state == "succeeded"


@pytest.mark.slow
def test_a_failing_driver_is_failed_with_its_reason(jobs: RayJobs) -> None:
    """The message names the exit code and leaves the log to `logs`."""
    jobs.launch("bad", 1)
    job = _finished(jobs, "bad")
    assert (job.state, job.extra["driver_exit_code"]) == ("failed", 3)
    assert job.message == "Job entrypoint command failed with exit code 3"


@pytest.mark.slow
def test_a_running_driver_is_stopped(jobs: RayJobs) -> None:
    """A stopped driver ends; stopping it again, or one that never was, is no error."""
    jobs.launch("long", 1)
    _wait_until(lambda: "driver 1 of long" in jobs.logs("long", 1), 30, "the driver runs")
    assert jobs.job("long", 1).state == "running"
    jobs.stop("long", 1)
    assert _finished(jobs, "long").state == "stopped"
    jobs.stop("long", 1)
    jobs.stop("never", 1)


@pytest.mark.slow
def test_the_cluster_tells_its_resources_and_unknown_jobs(jobs: RayJobs) -> None:
    """Totals over the living nodes; a job that the cluster never saw is missing, without a log."""
    assert jobs.resources()["CPU"] == 1
    assert jobs.job("never", 1).state == "missing"
    assert jobs.logs("never", 1) == ""


@pytest.mark.slow
@pytest.mark.parametrize("token", ["wrong", None])
def test_a_refused_token_says_which_file_it_is_in(head: Head, tmp_path: Path, token: str | None) -> None:
    """A wrong or missing token is one clear sentence, without the token."""
    path = tmp_path / "token"
    if token:
        path.write_text(token)
    jobs = RayJobs(head.url, token_path=path)
    with pytest.raises(Unavailable, match=f"refuses the token in {path}"):
        jobs.launch("good", 1)
    jobs.close()


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"result": False, "msg": "not yet", "data": {"result": None}},
        {"result": True, "data": {"result": {"result": None}}},
        {"result": True, "data": {"result": {"result": [{"node_id": "1"}]}}},
        {"status": "DREAMING"},
    ],
)
def test_an_answer_of_another_form_is_unavailable(tmp_path: Path, answer: object) -> None:
    """A head that is starting, or something else at its port: a sweep is then taken unseen; that is no 500."""
    with serving(answer) as url:
        jobs = RayJobs(url, token_path=tmp_path / "token")
        for call in (jobs.nodes, jobs.resources, lambda: jobs.job("s", 1)):
            with pytest.raises(Unavailable, match=r"^need .* from http://127\.0\.0\.1:\d+/api/"):
                call()
        jobs.close()


def test_a_node_that_has_not_told_what_it_has_counts_for_nothing(tmp_path: Path) -> None:
    """Sweeps are not refused because of it."""
    nodes = [{"state": "ALIVE", "resources_total": has} for has in ({"CPU": 2.0, "node:1": 1.0}, {}, None)]
    with serving({"data": {"result": {"result": nodes}}}) as url:
        jobs = RayJobs(url, token_path=tmp_path / "token")
        assert jobs.nodes() == [{"CPU": 2.0}]
        jobs.close()


@pytest.mark.parametrize(("of_ones_own", "python"), [(True, "python"), (False, sys.executable)])
def test_a_driver_is_run_by_an_interpreter_of_its_cluster(tmp_path: Path, of_ones_own: bool, python: str) -> None:
    """The API's may be at a path that a cluster of the user's own does not have; the embedded head has the same."""
    sent: list[dict[str, str]] = []
    with serving({}, sent) as url:
        port = int(url.rpartition(":")[2])
        settings = Settings(home=tmp_path, ray_url=url) if of_ones_own else Settings(home=tmp_path, dashboard_port=port)
        with contextlib.closing(_ray(settings)) as jobs:
            jobs.launch("s", 1)
    assert [job["entrypoint"] for job in sent] == [f"{python} -m service.driver s 1"]


@contextlib.contextmanager
def serving(answer: object, sent: list[dict[str, str]] | None = None) -> Iterator[str]:
    """Something that answers every request with the same JSON, and adds to `sent` what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert sent is not None
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_address_without_ray_is_unavailable(tmp_path: Path) -> None:
    """Every method says that Ray does not answer, and where it was looked for."""
    jobs = RayJobs(f"http://127.0.0.1:{free_port()}", token_path=tmp_path / "token")
    calls: list[Callable[[], object]] = [
        lambda: jobs.launch("s", 1),
        lambda: jobs.job("s", 1),
        lambda: jobs.stop("s", 1),
        lambda: jobs.logs("s", 1),
        jobs.resources,
    ]
    for call in calls:
        with pytest.raises(Unavailable, match=r"Ray at http://127\.0\.0\.1:\d+ does not answer \(ConnectError\)"):
            call()
    jobs.close()
