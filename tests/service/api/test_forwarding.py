"""Requests sent on to replicas: what becomes of them where a replica is slow, dead, or not asked by the API."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service.adapters.ray_head import RayHead
from service.adapters.ray_serve import RayServe
from service.api.forwarding import GRACE, SECRET, Replicas
from service.inference.serving_config import Serving, ServingTable
from service.replica import create_replica, settings_by
from service.replicas_config import ReplicasConfig, replicas_config
from service.settings import Settings

URL = "/v1/models/digits/predict"
IMAGE = {"content": b"image", "headers": {"content-type": "image/png"}}


class Replica:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self, *answers: Response | None) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.given_up = asyncio.Event()
        self._answers = list(answers)
        """None: not at all."""
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])

    async def _answer(self, request: Request) -> Response:
        self.asked.append((request.method, str(request.url.path), await request.body()))
        answer = self._answers.pop(0)
        if answer is not None:
            return answer
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.given_up.set()
        return Response()


@pytest.fixture(name="before")
def _before(
    make_service: Callable[..., Any], serve: Callable[..., str]
) -> Callable[..., tuple[Any, Callable[..., httpx.Response]]]:
    """An API before a replica, and how it is asked."""

    def make(replica: Replica, *, deadline: float = 30.0, patience: float = 5.0) -> Any:
        serving = ServingTable({"digits": Serving(deadline=deadline)}, Serving())
        replicas = Replicas(
            serve(replica.app), secret=lambda: "s", serving=serving, deploy=lambda: None, patience=patience
        )
        return make_service(replicas=replicas).http

    return make


def test_an_answer_comes_back_as_it_is(before: Any) -> None:
    """Status, body and the headers that say what it is; the request went on whole."""
    said = JSONResponse({"detail": "busy"}, status_code=429, headers={"Retry-After": "3", "X-Other": "1"})
    replica = Replica(said)
    answer = before(replica).post(f"{URL}?version=2", **IMAGE)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, {"detail": "busy"}, "3")
    assert "x-other" not in answer.headers
    assert replica.asked == [("POST", URL, b"image")]


def test_a_replica_that_died_is_not_the_callers_concern(before: Any) -> None:
    """What Ray's proxy says of it, in plain text, is no answer: another one is asked."""
    died = PlainTextResponse("Internal Server Error", status_code=500)
    replica = Replica(died, PlainTextResponse("no replicas", status_code=503), JSONResponse({"predictions": []}))
    answer = before(replica).post(URL, **IMAGE)
    assert (answer.status_code, len(replica.asked)) == (200, 3)


def test_nobody_there_is_a_503_that_says_so(before: Any) -> None:
    """After a while of asking again."""
    gone = [PlainTextResponse("Path '/' not found", status_code=404) for _ in range(9)]
    answer = before(Replica(*gone), patience=0.1).post(URL, **IMAGE)
    assert (answer.status_code, "Path '/' not found" in answer.json()["detail"]) == (503, True)
    assert answer.headers["retry-after"]


def test_a_deadline_holds_for_the_whole_way(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns of it, and the replica that nobody waits for any more."""
    monkeypatch.setattr("service.api.forwarding.GRACE", 0.0)
    assert GRACE > 0
    replica = Replica(None)
    answer = before(replica, deadline=0.2).post(URL, **IMAGE)
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "no answer within 0.2 s: the replicas have too much to do",
    )
    for _ in range(100):
        if replica.given_up.is_set():
            break
        asyncio.run(asyncio.sleep(0.02))
    assert replica.given_up.is_set()


def test_a_version_is_promoted_once_a_replica_has_it(before: Any) -> None:
    """Its errors are those of promoting: not found, or cannot be loaded."""
    for status, content in ((404, {"error": "there is no version 1"}), (503, {"ready": False})):
        replica = Replica(JSONResponse(content, status_code=status))
        answer = before(replica).post("/v1/models/digits/promote", json={"version": 1})
        assert answer.status_code == status
        assert replica.asked[0][:2] == ("GET", "/v2/models/digits/versions/1/ready")


def test_a_replica_answers_the_api_alone(
    service: Any, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wants to see the secret that both can work out; then it answers as the API does, and makes no validators."""
    service.model()
    settings = replace(service.settings, serving='{"*": {"engine": "eager"}}')
    url = serve(create_replica(service.store, settings=settings, secret="s", workers=1))
    for shown in ("", "t"):
        refused = httpx.get(f"{url}/v1/models/digits", headers={SECRET: shown})
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
    with monkeypatch.context() as patch:
        patch.setattr(warnings, "catch_warnings", None)  # as making them would need
        known = httpx.get(f"{url}/v1/models/digits", headers={SECRET: "s"})
    assert known.json() == service.http.get("/v1/models/digits").json()
    broken = {"content": b"image", "headers": {SECRET: "s", "content-type": "image/png"}}
    assert httpx.post(f"{url}{URL}", **broken).json() == service.http.post(URL, **IMAGE).json()  # type: ignore[arg-type]


def test_a_replica_has_the_settings_by_which_the_api_answers(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its node's environment says; with others it is another replica. Home and database are the node's."""
    declared: list[Any] = []

    async def answer(request: Request) -> Response:
        if request.method == "PUT":
            declared.extend((await request.json())["applications"])
        return JSONResponse({"applications": {}})

    url = serve(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "PUT"])]))
    monkeypatch.setenv("SWEEPSERVE_HOME", str(tmp_path / "node"))
    monkeypatch.setenv("SWEEPSERVE_SERVING", '{"*": {"max_queue": 1}}')
    for serving, images in (("", 256), ('{"*": {"max_queue": 9}}', 2)):
        settings = Settings(home=tmp_path / "api", serving=serving, max_images=images, max_image_pixels=10**9)
        with closing(RayHead(url, token_path=tmp_path / "none")) as head:
            RayServe(head, ReplicasConfig(), settings).deploy()
        assert settings_by(declared[-1]["args"]) == replace(settings, home=tmp_path / "node")
    assert len({one["args"]["digest"] for one in declared}) == 2


def test_replicas_are_read_from_json() -> None:
    """Faults are named."""
    assert replicas_config("") is None
    assert replicas_config('{"max": 4, "gpus": 0.25, "url": "http://head:8001"}') == ReplicasConfig(
        max=4, gpus=0.25, url="http://head:8001"
    )
    for text, reason in {
        "[]": 'SWEEPSERVE_REPLICAS: need an object, as {"max": 4}',
        "{": "SWEEPSERVE_REPLICAS: ",
        '{"min": 2}': "max: need at least min, 2, got 1",
        '{"maximum": 2}': "maximum",
        '{"url": "head:8001"}': "url: need http://HOST:PORT, got 'head:8001'",
    }.items():
        with pytest.raises(ValueError, match="SWEEPSERVE_REPLICAS") as error:
            replicas_config(text)
        assert reason in str(error.value)
