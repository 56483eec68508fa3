"""A model that has too much to do says so, before it looks at any image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from service.inference.batcher import Batcher
from service.inference.serving_config import Serving

IMAGE = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 16, 16], "data": [0] * 256}
LARGE = bytes(cv2.imencode(".png", np.zeros((1000, 1000), np.uint8))[1])
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "an image": ("/v1/models/digits/predict", {"files": [("images", b"none at all")]}),
    "a large image": ("/v1/models/digits/predict", {"files": [("images", LARGE)]}),
    "a large file": ("/v1/models/digits/predict", {"files": [("images", bytes(2**17))]}),
    "a tensor": ("/v2/models/digits/infer", {"json": {"inputs": [IMAGE]}}),
}


class Stuck(Executor):
    """Threads that never come to what they are given."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Not before the end of time."""
        return Future()


@pytest.fixture(name="overload")
def _overload(service: Any, portal: Any) -> Iterator[Callable[..., None]]:
    """Has the model's threads stuck, and so many images wait for them."""
    waiting: list[Any] = []

    def overload(images: int, serving: Serving) -> None:
        service.model()
        predictors = service.app.state.parts.predictors
        model = portal.call(predictors.model, "digits")
        predictors._decoding = Stuck()
        model.batcher = batcher = Batcher(lambda *_: [], executor=Stuck(), workers=1, serving=serving)

        async def ask() -> None:
            await batcher.submit(None, size=1)

        waiting.extend(portal.start_task_soon(ask) for _ in range(1 + images))  # one is with the thread

    yield overload
    for one in waiting:
        one.cancel()


def _ask(http: httpx.Client, question: str) -> httpx.Response:
    url, content = QUESTIONS[question]
    return http.post(url, **content)


def _said(answer: httpx.Response) -> str:
    document = answer.json()
    return str(document["error"] if "error" in document else document["detail"])


def test_a_full_queue_is_a_429_that_says_when_to_come_again(service: Any, overload: Callable[..., None]) -> None:
    """Before an image is decoded: one that cannot be read is not looked at."""
    overload(2, Serving(max_queue=2))
    for question in QUESTIONS:
        answer = _ask(service.http, question)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1"), question
        assert _said(answer) == "2 images wait already, at most 2 may"


def test_a_deadline_that_passes_is_a_503(service: Any, overload: Callable[..., None]) -> None:
    """Whatever it is that takes so long, decoding included."""
    overload(0, Serving(deadline=0.05))
    for question in QUESTIONS:
        answer = _ask(service.http, question)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), question
        assert _said(answer) == "no answer within 0.05 s: the model has too much to do"
