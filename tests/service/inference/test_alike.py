"""The served answer is the training pipeline's, by every way to ask; also while champions change."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import torch

from service.inference.serving_config import Serving, ServingTable
from trainables.saved_model import load_model

IMAGES = np.random.default_rng(11).integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)


def _trained(path: str) -> np.ndarray[Any, Any]:
    """What validation in training computes: normalised split images through the module, all at once."""
    model = load_model(Path(path))
    with torch.inference_mode():
        outputs = model.module(model.preprocessing.normalize(torch.from_numpy(IMAGES)))
    return model.task.probabilities(outputs).numpy()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("engine", ["eager", "openvino", "onnxruntime"])
def test_every_way_to_ask_gives_what_training_measured(make_service: Callable[..., Any], engine: Any) -> None:
    """To 1e-5: forms, JSON, bodies, tensors as JSON and raw; one at a time and together; on every engine."""
    service = make_service()
    predictors = service.app.state.parts.predictors
    predictors.serving = ServingTable({}, Serving(engine=engine))
    expected = _trained(service.model(seed=4).path)
    files = [bytes(cv2.imencode(".png", image[0])[1]) for image in IMAGES]
    url = "/v1/models/digits/predict"

    def ask() -> dict[str, Any]:
        texts = [base64.b64encode(file).decode() for file in files]
        tensor = {"name": "images", "datatype": "UINT8", "shape": list(IMAGES.shape)}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": IMAGES.size}}]}).encode()
        raw = {"content": head + IMAGES.tobytes(), "headers": {"Inference-Header-Content-Length": str(len(head))}}
        numbers = {"inputs": [{**tensor, "data": IMAGES.tolist()}]}
        answers = {
            "form": service.http.post(url, files=[("images", file) for file in files]).json()["predictions"],
            "json": service.http.post(url, json={"images": texts}).json()["predictions"],
            "body": [
                service.http.post(url, content=file, headers={"content-type": "image/png"}).json()["predictions"][0]
                for file in files
            ],
        }
        found = {way: [list(one["probabilities"].values()) for one in said] for way, said in answers.items()}
        for way, sent in {"raw tensor": raw, "tensor": {"json": numbers}}.items():
            (output,) = [
                one
                for one in service.http.post("/v2/models/digits/infer", **sent).json()["outputs"]
                if one["name"] == "probabilities"
            ]
            found[way] = np.reshape(output["data"], output["shape"])
        return found

    service.http.get("/v2/models/digits/ready")
    (model,) = predictors.loaded("digits")
    deadline = time.monotonic() + 120
    while not model.ready:
        assert time.monotonic() < deadline, "the engine does not get ready"
        time.sleep(0.01)  # an engine is really made: there is no clock of ours to move
    assert model.choice.engine.name == engine
    for way, probabilities in ask().items():
        np.testing.assert_allclose(probabilities, expected, atol=1e-5, err_msg=way)


def test_no_request_fails_while_champions_change(make_service: Callable[..., Any], serve: Callable[..., str]) -> None:
    """Twenty changes under eight clients: every answer is of the version which it names."""
    service = make_service()
    expected = {version: _trained(service.model(seed=version).path)[0] for version in (1, 2)}
    url = serve(service.app)
    content = bytes(cv2.imencode(".png", IMAGES[0, 0])[1])
    changing = True

    def client() -> list[dict[str, Any]]:
        answers = []
        with httpx.Client(base_url=url, timeout=30, headers={"content-type": "image/png"}) as http:
            while changing:
                answers.append(http.post("/v1/models/digits/predict", content=content).raise_for_status().json())
        return answers

    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(client) for _ in range(8)]
        try:
            with httpx.Client(base_url=url, timeout=30) as http:
                for change in range(20):
                    answer = http.post("/v1/models/digits/promote", json={"version": 1 + change % 2})
                    answer.raise_for_status()
        finally:
            changing = False
        answers = [answer for one in clients for answer in one.result()]
    assert {answer["version"] for answer in answers} == {1, 2}
    for answer in answers:
        probabilities = list(answer["predictions"][0]["probabilities"].values())
        np.testing.assert_allclose(probabilities, expected[answer["version"]], atol=1e-5)
