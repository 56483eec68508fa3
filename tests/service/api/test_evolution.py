"""How a recurrent model's answer came about, step by step."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from service.inference.loaded_model import MAX_STEPS
from tests.service.conftest import save_random_segmenter
from trainables.saved_model import SavedModel, load_model

IMAGES = [np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8) for i in range(2)]
FORM = [("images", (f"{i}.png", bytes(cv2.imencode(".png", image)[1]))) for i, image in enumerate(IMAGES)]
URL = "/v1/models/tracer/predict"


@pytest.fixture(name="saved")
def _saved(service: Any) -> SavedModel:
    version = service.model("tracer", save=save_random_segmenter)
    return load_model(Path(version.path))


def _masks(logits: torch.Tensor) -> np.ndarray[Any, Any]:
    masks: np.ndarray[Any, Any] = (logits[:, 1] > logits[:, 0]).numpy()
    return masks


def _unrolled(mask: dict[str, Any]) -> np.ndarray[Any, Any]:
    values = np.arange(len(mask["counts"])) % 2
    return np.repeat(values, mask["counts"]).reshape(mask["size"])


@pytest.mark.parametrize("steps", [None, 1, 5])
def test_each_step_of_one_run_is_what_so_many_steps_say(service: Any, saved: SavedModel, steps: int | None) -> None:
    """As many as asked for or trained; the last one is the answer; without being asked there is none."""
    query = {} if steps is None else {"steps": steps}
    plain = service.http.post(URL, files=FORM, params=query).json()["predictions"]
    answer = service.http.post(URL, files=FORM, params={**query, "evolution": True}).json()["predictions"]
    inputs = saved.preprocessing.normalize(torch.from_numpy(np.stack(IMAGES)[:, None]))
    for said, without in zip(answer, plain, strict=True):
        evolution = said.pop("evolution")
        assert said == without == evolution[-1]
        assert len(evolution) == (steps or 3)
    for step in range(1, (steps or 3) + 1):
        direct = service.http.post(URL, files=FORM, params={"steps": step}).json()["predictions"]
        with torch.inference_mode():
            expected = _masks(saved.module(inputs, steps=step))
        for one, mask in zip(direct, expected, strict=True):
            np.testing.assert_array_equal(_unrolled(one["mask"]), mask)
    assert len({json.dumps(one["mask"]) for one in evolution}) >= min(2, len(evolution))  # they do change
    evolutions = service.http.post(URL, files=FORM, params={"steps": 3, "evolution": True}).json()["predictions"]
    for i, image in enumerate(evolutions):
        for step, one in enumerate(image["evolution"], 1):
            assert one == service.http.post(URL, files=FORM, params={"steps": step}).json()["predictions"][i]


def test_masks_of_an_evolution_come_as_pictures_too(service: Any, saved: SavedModel) -> None:
    """Each of them, in base64."""
    runs = service.http.post(URL, files=FORM[:1], params={"evolution": True}).json()["predictions"][0]["evolution"]
    answer = service.http.post(URL, files=FORM[:1], params={"evolution": True, "masks": "png"}).json()
    for run, shown in zip(runs, answer["predictions"][0]["evolution"], strict=True):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(shown["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture, 255 * _unrolled(run["mask"]))


def test_tensors_of_an_evolution_have_an_axis_of_steps(service: Any, saved: SavedModel) -> None:
    """By the Open Inference Protocol, by its request parameter."""
    inputs = {"name": "images", "datatype": "UINT8", "shape": [2, 1, 16, 16], "data": np.stack(IMAGES).tolist()}
    url = "/v2/models/tracer/infer"
    document = {"inputs": [inputs], "parameters": {"evolution": True, "steps": 4}}
    answer = service.http.post(url, json=document).json()
    found = {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer["outputs"]}
    assert {name: one.shape for name, one in found.items()} == {"outputs": (2, 4, 2, 16, 16), "mask": (2, 4, 16, 16)}
    for step in range(1, 5):
        plain = service.http.post(url, json={"inputs": [inputs], "parameters": {"steps": step}}).json()
        for one in plain["outputs"]:
            np.testing.assert_allclose(
                found[one["name"]][:, step - 1], np.reshape(one["data"], one["shape"]), atol=1e-5
            )
    document["parameters"]["evolution"] = "yes"
    refused = service.http.post(url, json=document)
    assert (refused.status_code, refused.json()["error"]) == (400, "evolution: need true or false, got 'yes'")


def test_an_evolution_that_cannot_be_had_is_refused(service: Any, saved: SavedModel) -> None:
    """Of a model without steps, and of so many masks that memory would not do; the rule and the numbers are named."""
    service.model("digits")
    answer = service.http.post("/v1/models/digits/predict", files=FORM, params={"evolution": True})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "evolution: need a recurrent model, 'digits' is a narrow_resnet"
    many = [FORM[0]] * 40
    answer = service.http.post(URL, files=many, params={"evolution": True, "steps": 1000})
    assert answer.status_code == 400
    expected = "evolution: need at most 32768 images times steps of 'tracer', got 40 x 1000"
    assert answer.json()["detail"] == expected


def test_many_images_of_many_steps_are_refused(service: Any, saved: SavedModel) -> None:
    """They would keep a thread for minutes. As many steps as were trained are never too many."""
    answer = service.http.post(URL, files=[FORM[0]] * 17, params={"steps": 1000})
    assert answer.status_code == 400
    expected = "steps: need at most 16384 images times steps beyond the 3 of training, got 17 x 1000"
    assert answer.json()["detail"] == expected
    inputs = {"name": "images", "datatype": "UINT8", "shape": [17, 1, 16, 16], "data": [0] * 17 * 256}
    document = {"inputs": [inputs], "parameters": {"steps": 1000}}
    assert service.http.post("/v2/models/tracer/infer", json=document).json() == {"error": expected}
    assert service.http.post(URL, files=FORM, params={"steps": 3}).status_code == 200


def test_the_most_steps_are_one_number_everywhere(service: Any, saved: SavedModel) -> None:
    """OpenAPI tells the largest number of steps, and one more is refused by it, by either protocol."""
    operation = service.http.get("/openapi.json").json()["paths"]["/v1/models/{name}/predict"]["post"]
    (parameter,) = [one for one in operation["parameters"] if one["name"] == "steps"]
    assert [one["maximum"] for one in parameter["schema"]["anyOf"] if one["type"] == "integer"] == [MAX_STEPS]
    refused = service.http.post(URL, files=FORM, params={"steps": MAX_STEPS + 1})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/steps")
    inputs = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 16, 16], "data": [0] * 256}
    document = {"inputs": [inputs], "parameters": {"steps": MAX_STEPS + 1}}
    refused = service.http.post("/v2/models/tracer/infer", json=document)
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        f"steps: need a whole number from 1 to {MAX_STEPS}, got {MAX_STEPS + 1}",
    )
