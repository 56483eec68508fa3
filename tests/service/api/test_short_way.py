"""A request about an image gets the same answer by the short way and by FastAPI's own."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.routing import Match

from service.api.routes import answers, inference
from service.api.short_way import ShortWay, short_ways

PNG = bytes(cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))[1])
JSON = {"images": [base64.b64encode(PNG).decode()]}
PIXELS = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 16, 16], "data": [7] * 256}
ASKED: Mapping[str, tuple[str, dict[str, Any], int]] = {
    "images in JSON": ("/v1/models/digits/predict", {"json": JSON}, 200),
    "images in a form": ("/v1/models/digits/predict", {"files": [("images", ("0.png", PNG))]}, 200),
    "an image": ("/v1/models/digits/predict", {"content": PNG, "headers": {"Content-Type": "image/png"}}, 200),
    "tensors": ("/v2/models/digits/infer", {"json": {"inputs": [PIXELS]}}, 200),
    "tensors for a version": ("/v2/models/digits/versions/1/infer", {"json": {"inputs": [PIXELS]}}, 200),
    "no such model": ("/v1/models/nobody/predict", {"json": JSON}, 404),
    "no such version": ("/v2/models/digits/versions/one/infer", {"json": {"inputs": [PIXELS]}}, 404),
    "NUL in a name": ("/v1/models/dig%00its/predict", {"json": JSON}, 400),
    "no image": ("/v1/models/digits/predict", {"json": {"images": ["AAAA"]}}, 400),
    "no JSON": ("/v1/models/digits/predict", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
    "no type": ("/v1/models/digits/predict", {"content": b"{"}, 415),
    "wrong shape": ("/v2/models/digits/infer", {"json": {"inputs": [{**PIXELS, "shape": [1, 1, 1, 1]}]}}, 400),
}  # fmt: skip
"""Requests by what they are: path, the rest of it, status."""


@pytest.mark.parametrize("asked", ASKED)
def test_both_ways_answer_alike(service: Any, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Status, body and the route by which metrics count it; a query, even an unknown one, takes FastAPI's way."""
    service.model()
    path, request, status = ASKED[asked]
    taken = []
    handle = ShortWay.handle

    async def seen(self: ShortWay, *connection: Any) -> None:
        taken.append(self.path_format)
        await handle(self, *connection)

    monkeypatch.setattr(ShortWay, "handle", seen)
    short = service.http.post(path, **request)
    assert len(taken) == 1
    long = service.http.post(path, params={"unknown": "1"}, **request)
    assert len(taken) == 1
    assert (short.status_code, short.content) == (long.status_code, long.content)
    assert short.status_code == status, short.text
    assert short.headers["content-type"] == long.headers["content-type"]
    counted = f'sweepserve_requests_total{{method="POST",route="{taken[0]}",status="{status}"}} 2.0'
    assert counted in service.http.get("/metrics").text


def test_there_is_a_short_way_to_each_route_that_is_posted_to() -> None:
    """And to no other: what is only looked at goes FastAPI's way."""
    assert sorted(way.path_format for way in short_ways(answers.router, inference.router)) == [
        "/v1/models/{name}/predict",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}/infer",
    ]


def test_other_methods_and_paths_pass_it_by() -> None:
    """Also a websocket, and a path with something behind it."""
    way = next(short_ways(answers.router))
    scope = {"type": "http", "method": "POST", "path": "/v1/models/a/predict", "query_string": b""}
    match, found = way.matches(scope)
    assert (match, found["path_params"]) == (Match.FULL, {"name": "a"})
    others: list[dict[str, Any]] = [
        {"method": "GET"},
        {"type": "websocket"},
        {"query_string": b"steps=3"},
        {"path": "/v1/models/a/predict/b"},
        {"path": "/a/v1/models/a/predict"},
    ]
    for other in others:
        assert way.matches({**scope, **other})[0] is Match.NONE
