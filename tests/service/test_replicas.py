"""Replicas that answer about models for the API, on a real Ray cluster of one node."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest

from service import processes
from service.adapters.ray_head import RayHead
from service.adapters.ray_serve import APPLICATION, PATH, RayServe
from service.adapters.sql_store import SqlStore
from service.api.forwarding import Replicas
from service.domain import ModelVersion
from service.inference.serving_config import serving_table
from service.programs import programs, ray_folder
from service.replicas_config import ReplicasConfig
from service.settings import Settings
from tests.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("grpc_reflection") is None, reason="needs sweepserve[serve]"),
]
SERVING = '{"*": {"engine": "eager"}}'
IMAGE = bytes(cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))[1])
JSON = {"images": [base64.b64encode(IMAGE).decode()]}
MARK = "TEST_OF_REPLICAS"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cluster:
    settings: Settings
    config: ReplicasConfig

    def ray(self) -> RayHead:
        """Its REST API."""
        return RayHead(self.settings.jobs_url, token_path=self.settings.ray_token_path)

    def pids(self) -> set[int]:
        """Of the replicas that are ready."""
        with closing(self.ray()) as head:
            application = head.ask("GET", PATH).json()["applications"].get(APPLICATION, {"deployments": {}})
        replicas = [one for deployment in application["deployments"].values() for one in deployment["replicas"]]
        return {one["pid"] for one in replicas if one["state"] == "RUNNING"}


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="replicas"))
    dashboard, proxy = free_port(), free_port()
    settings = Settings(home=home, dashboard_port=dashboard, mlflow_url="http://127.0.0.1:9", serving=SERVING)
    ray = programs(settings)[1]
    environment = {
        **os.environ,
        **settings.to_environment(),
        **ray.environment,
        "PYTHONPATH": str(ROOT),
        MARK: str(home),
    }
    process = processes.spawn([*ray.command, "--num-cpus=2"], environment=environment, log=home / "ray.log")
    try:
        with httpx.Client() as client:
            _wait_until(lambda: ray.serves(client), 60, "the Ray head is up")
        yield Cluster(settings, ReplicasConfig(url=f"http://127.0.0.1:{proxy}", min=2, max=2, cpus=0.5))
    finally:
        processes.end(lambda: processes.marked(MARK, str(home)), grace=2.0)
        process.wait(10)
        shutil.rmtree(home)
        shutil.rmtree(ray_folder(home), ignore_errors=True)


def _wait_until(true: Callable[[], Any], seconds: float, what: str) -> None:
    for _ in range(int(seconds / 0.1)):
        if true():
            return
        time.sleep(0.1)  # real processes: there is no clock of ours to move
    pytest.fail(f"not within {seconds} s: {what}")


def test_replicas_answer_as_the_api_would_and_one_may_die(
    cluster: Cluster, make_service: Callable[..., Any], serve: Callable[..., str]
) -> None:
    """The same answers and errors by the same routes; another champion at once; a killed replica costs no request."""
    with closing(SqlStore(cluster.settings.database_url)) as store, closing(cluster.ray()) as head:
        store.migrate()
        here = make_service(store)
        versions: list[ModelVersion] = [here.model(seed=1), here.model(seed=2)]
        ray_serve = RayServe(head, cluster.config, cluster.settings)
        replicas = Replicas(
            cluster.config.url, secret=ray_serve.secret, serving=serving_table(SERVING), deploy=ray_serve.deploy
        )
        there = make_service(store, replicas=replicas)
        with httpx.Client(base_url=serve(there.app), timeout=30) as client:
            _wait_until(lambda: len(cluster.pids()) == 2, 60, "two replicas are ready")
            ray_serve.deploy()  # once more changes nothing
            _same_answers(here.http, client)
            assert httpx.post(f"{cluster.config.url}/v1/models/digits/predict", json=JSON).status_code == 401
            _another_champion(client, versions)
            _one_dies(cluster, client)


def _same_answers(here: httpx.Client, there: httpx.Client) -> None:
    form = [("images", ("a.png", IMAGE)), ("images", ("b.png", IMAGE))]
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 16, 16], "data": [7] * 256}
    binary = {"content-type": "application/octet-stream", "Inference-Header-Content-Length": "9"}
    url = "/v1/models/digits/predict"
    for status, method, path, content in (
        (200, "POST", url, {"json": JSON}),
        (200, "POST", f"{url}?version=1", {"files": form}),
        (200, "POST", "/v2/models/digits/infer", {"json": {"id": "7", "inputs": [tensor]}}),
        (200, "GET", "/v2/models/digits/versions/2", {}),
        (400, "POST", url, {"files": [("images", ("a.png", b"no image"))]}),
        (400, "POST", f"{url}?steps=3", {"json": JSON}),
        (400, "POST", "/v2/models/digits/infer", {"content": b"{}", "headers": binary}),
        (404, "POST", "/v1/models/nobody/predict", {"json": JSON}),
        (404, "GET", "/v2/models/digits/versions/9/ready", {}),
        (415, "POST", url, {"content": b"x", "headers": {"content-type": "text/plain"}}),
        (422, "POST", f"{url}?version=0", {"json": JSON}),
    ):
        answers = [one.request(method, path, **content) for one in (here, there)]
        assert [one.status_code for one in answers] == [status, status], path
        assert answers[0].headers["content-type"] == answers[1].headers["content-type"]
        if status != 200 or method == "GET":
            assert answers[0].json() == answers[1].json()
        elif "predictions" in answers[0].json():
            for one, other in zip(*(answer.json()["predictions"] for answer in answers), strict=True):
                assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def _another_champion(client: httpx.Client, versions: list[ModelVersion]) -> None:
    for version in (1, 2):
        assert client.post("/v1/models/digits/promote", json={"version": version}).status_code == 200
        _wait_until(lambda version=version: _answering(client) == {version}, 2, "every replica has the new champion")
    assert client.post("/v1/models/digits/promote", json={"version": 3}).status_code == 404
    Path(versions[0].path).rename(f"{versions[0].path}-away")


def _answering(client: httpx.Client) -> set[int]:
    return {client.post("/v1/models/digits/predict", json=JSON).json()["version"] for _ in range(8)}


def _one_dies(cluster: Cluster, client: httpx.Client) -> None:
    statuses: list[int] = []
    ending = threading.Event()

    def ask() -> None:
        while not ending.is_set():
            statuses.append(client.post("/v1/models/digits/predict", json=JSON).status_code)

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for asker in askers:
        asker.start()
    _wait_until(lambda: len(statuses) > 50, 20, "replicas answer under load")
    victim = min(cluster.pids())
    os.kill(victim, signal.SIGKILL)
    at_death = len(statuses)
    _wait_until(lambda: victim not in cluster.pids(), 20, "the cluster has seen it")
    _wait_until(lambda: len(statuses) > at_death + 50, 20, "the other one answers")
    ending.set()
    for asker in askers:
        asker.join()
    assert not psutil.pid_exists(victim)
    assert set(statuses) == {200}, [status for status in statuses if status != 200]
