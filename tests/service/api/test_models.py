"""Models over HTTP: who they are, and what they say about images."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.domain import TrialState
from trainables.data.synthetic_scene import SyntheticScene
from trainables.models.pose_net import PoseNetConfig
from trainables.saved_model import load_model, save_model
from trainables.trial import TrainConfig, TrialConfig

IMAGES = [np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8) for i in range(3)]


def _png(image: np.ndarray[Any, Any]) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{i}.png", content)) for i, content in enumerate(contents)]


def _json(*contents: bytes) -> dict[str, list[str]]:
    return {"images": [base64.b64encode(content).decode() for content in contents]}


def test_a_form_and_json_get_the_models_own_answers(service: Any) -> None:
    """One or many images, either way: what the saved model says, and which version of which trial said it."""
    version = service.model()
    expected = load_model(Path(version.path)).predict(IMAGES)
    contents = [_png(image) for image in IMAGES]
    form = service.http.post("/v1/models/digits/predict", files=_form(*contents))
    assert form.status_code == 200
    answer = form.json()
    assert {key: answer[key] for key in ("model", "version", "sweep_id", "trial_id")} == {
        "model": "digits",
        "version": 1,
        "sweep_id": version.sweep_id,
        "trial_id": version.trial_id,
    }
    for said, meant in zip(answer["predictions"], expected, strict=True):
        assert said["class"] == meant["class"]
        assert said["probabilities"] == pytest.approx(meant["probabilities"])
    assert service.http.post("/v1/models/digits/predict", json=_json(*contents)).json() == answer
    alone = service.http.post("/v1/models/digits/predict", json=_json(contents[1])).json()["predictions"]
    assert alone[0]["probabilities"] == pytest.approx(expected[1]["probabilities"], rel=1e-4)  # another batch size


def test_a_model_that_is_not_there_yet_is_a_404_that_says_so(service: Any) -> None:
    """Before any trial has completed, the user learns when there will be one."""
    sweep = service.running()
    service.trial(sweep, 0)
    answer = service.http.post("/v1/models/digits/predict", json=_json(b"not even an image"))
    assert answer.status_code == 404
    assert "there is no model named 'digits' yet" in answer.json()["detail"]
    assert service.http.get("/v1/models/digits").status_code == 404


def test_a_new_champion_answers_as_soon_as_it_is_ready(service: Any) -> None:
    """Until then requests are answered by the version before, which says so; they load the new one."""
    content = _json(_png(IMAGES[0]))
    service.model(seed=1)
    first = second = service.http.post("/v1/models/digits/predict", json=content).json()
    assert first["version"] == 1
    service.model(seed=2)
    deadline = time.monotonic() + 30
    while second["version"] == 1:
        assert second == first
        assert time.monotonic() < deadline, "the new version does not get ready"
        second = service.http.post("/v1/models/digits/predict", json=content).json()
    assert first["predictions"] != second["predictions"]


def test_models_and_versions_are_listed(service: Any) -> None:
    """The newest version of each model; all versions of one, newest first; no paths of the server."""
    service.model("a")
    service.model("b", seed=1)
    service.model("b", seed=2)
    listed = service.http.get("/v1/models").json()["models"]
    assert [(model["name"], model["version"], model["value"]) for model in listed] == [("a", 1, 0.9), ("b", 2, 0.9)]
    model = service.http.get("/v1/models/b").json()
    assert (model["name"], [version["version"] for version in model["versions"]]) == ("b", [2, 1])
    assert "path" not in model["versions"][0]


@pytest.mark.parametrize("send", ["form", "json"])
def test_an_image_that_cannot_be_read_is_named(service: Any, send: str) -> None:
    """400, and the answer says which of them and why."""
    service.model()
    contents = (_png(IMAGES[0]), b"\x89PNG\r\n\x1a\nrubbish")
    sent = {"files": _form(*contents)} if send == "form" else {"json": _json(*contents)}
    answer = service.http.post("/v1/models/digits/predict", **sent)
    assert answer.status_code == 400
    named = "images[1] (1.png)" if send == "form" else "images[1]"
    assert answer.json()["detail"] == f"{named} cannot be read: the PNG does not start with its header"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, 'need {"images"'),
        ({"images": []}, 'need {"images"'),
        ({"images": "abc"}, 'need {"images"'),
        ({"images": ["aa"], "extra": 1}, 'need {"images"'),
        ([], 'need {"images"'),
    ],
)
def test_json_without_images_says_what_is_needed(service: Any, body: Any, reason: str) -> None:
    """422 with a pointer, in the form of every other fault."""
    service.model()
    answer = service.http.post("/v1/models/digits/predict", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/images"
    assert reason in error["detail"]


@pytest.mark.parametrize("text", [7, None, "data:image/png;base64,AAAA", "ab", "é"])
def test_an_image_that_is_not_base64_is_named(service: Any, text: Any) -> None:
    """Only plain base64 is taken."""
    service.model()
    answer = service.http.post("/v1/models/digits/predict", json={"images": [text]})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("images[0] cannot be read: need base64 (RFC 4648)")


def test_a_form_with_texts_says_how_files_are_sent(service: Any) -> None:
    """The commonest slip with curl is a missing @."""
    service.model()
    answer = service.http.post("/v1/models/digits/predict", data={"images": "seven.png"}, files=_form(_png(IMAGES[0])))
    assert answer.status_code == 422
    assert "-F images=@FILE" in answer.json()["errors"][0]["detail"]


def test_an_empty_form_is_a_fault(service: Any) -> None:
    """A form without a part, and one that is no form at all."""
    service.model()
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = service.http.post("/v1/models/digits/predict", content=b"--x--\r\n", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/images")
    answer = service.http.post(
        "/v1/models/digits/predict", content=b"", headers={"content-type": "multipart/form-data"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_too_many_images_are_refused(make_service: Callable[..., Any]) -> None:
    """413 either way, with the limit and its setting."""
    service = make_service(max_images=2)
    service.model()
    contents = [_png(image) for image in IMAGES]
    for sent in ({"files": _form(*contents)}, {"json": _json(*contents)}):
        answer = service.http.post("/v1/models/digits/predict", **sent)
        assert answer.status_code == 413
        assert answer.json()["detail"] == "need at most 2 images at a time (SWEEPSERVE_MAX_IMAGES)"
    assert service.http.post("/v1/models/digits/predict", json=_json(*contents[:2])).status_code == 200


def test_images_share_one_limit_of_pixels(make_service: Callable[..., Any]) -> None:
    """Small files may hold large images: what counts is what all of them take in memory."""
    service = make_service(max_image_pixels=600)  # two images of 16 x 16, not three
    service.model()
    contents = [_png(image) for image in IMAGES]
    assert service.http.post("/v1/models/digits/predict", json=_json(*contents[:2])).status_code == 200
    answer = service.http.post("/v1/models/digits/predict", json=_json(*contents))
    assert answer.status_code == 413
    assert answer.json()["detail"] == (
        "images[2] is too large: need at most 88 pixels, got 16 x 16; "
        "all images of a request may have 600 together (SWEEPSERVE_MAX_IMAGE_PIXELS)"
    )


def test_a_model_whose_files_are_gone_is_a_503(service: Any) -> None:
    """The model exists, so it is not a 404; a disk that comes back mends it."""
    version = service.model()
    (Path(version.path) / "model.safetensors").unlink()
    answer = service.http.post("/v1/models/digits/predict", json=_json(_png(IMAGES[0])))
    assert answer.status_code == 503
    assert "version 1 of model 'digits' cannot be loaded" in answer.json()["detail"]
    assert service.store.trial(version.trial_id).state is TrialState.COMPLETED


def test_a_pose_lstm_answers_with_a_position_and_a_unit_quaternion(service: Any, tmp_path: Path) -> None:
    """For a photograph of the synthetic scene, as the saved model itself does."""
    data = SyntheticScene(image_size=80, train=2, validation=1, test=2)
    dataset = data.load(tmp_path)
    model = PoseNetConfig(head="lstm", width=0.05, hidden_size=4)
    trial = TrialConfig(family="pose_net", model=model, train=TrainConfig(), data=data)
    weights = model.build(input_shape=dataset.preprocessing.input_shape, outputs=7).state_dict()
    version = service.model("street")
    save_model(Path(version.path), trial=trial, dataset=dataset, weights=weights, step=1, metrics={})
    photographs = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in dataset.test.images]
    contents = [_png(np.ascontiguousarray(image[:, :, ::-1])) for image in photographs]
    answer = service.http.post("/v1/models/street/predict", json=_json(*contents))
    assert answer.status_code == 200
    for said, meant in zip(
        answer.json()["predictions"], load_model(Path(version.path)).predict(photographs), strict=True
    ):
        assert set(said) == {"position", "orientation"}
        assert len(said["position"]) == 3
        assert len(said["orientation"]) == 4
        assert np.linalg.norm(said["orientation"]) == pytest.approx(1, abs=1e-5)
        for part in ("position", "orientation"):
            assert said[part] == pytest.approx(meant[part], abs=1e-5)
    images = dataset.test.images
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8", "data": images.flatten().tolist()}
    inferred = service.http.post("/v2/models/street/infer", json={"inputs": [tensor]}).json()["outputs"]
    told = {output["name"]: np.reshape(output["data"], output["shape"]) for output in inferred}
    assert told["position"].shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(told["orientation"], axis=1), 1, atol=1e-5)
    for part in ("position", "orientation"):
        meant = [one[part] for one in answer.json()["predictions"]]
        np.testing.assert_allclose(told[part], meant, atol=1e-5)


def test_an_image_may_be_the_body_itself(service: Any) -> None:
    """With an image's content type, or that of any bytes; another one is a 415."""
    service.model()
    content = _png(IMAGES[0])
    url = "/v1/models/digits/predict"
    expected = service.http.post(url, json=_json(content)).json()
    for kind in ("image/png", "application/octet-stream"):
        assert service.http.post(url, content=content, headers={"content-type": kind}).json() == expected
    assert service.http.post(url, content=content, headers={"content-type": "text/plain"}).status_code == 415
    broken = service.http.post(url, content=b"GIF89a", headers={"content-type": "image/gif"})
    assert broken.status_code == 400
    assert broken.json()["detail"].startswith("the image cannot be read: need PNG, JPEG, BMP, TIFF, WebP")


def test_another_version_answers_if_asked(service: Any) -> None:
    """By its number or by the sweep that made it."""
    first, second = service.model(seed=1), service.model(seed=2)
    content, url = _json(_png(IMAGES[0])), "/v1/models/digits/predict"
    assert service.http.post(url, json=content).json()["version"] == second.version
    for query in ({"version": 1}, {"sweep": first.sweep_id}):
        assert service.http.post(url, json=content, params=query).json()["version"] == 1
    assert service.http.post(url, json=content, params={"version": 9}).status_code == 404
    assert service.http.post(url, json=content, params={"version": 0}).status_code == 422
    assert service.http.post(url, json=content, params={"steps": 2}).status_code == 400


def test_a_champion_is_promoted_and_rolled_back(service: Any) -> None:
    """At once, for the next request; the record says who did what and why."""
    service.model(seed=1)
    service.model(seed=2)
    content, url = _json(_png(IMAGES[0])), "/v1/models/digits"
    promoted = service.http.post(f"{url}/promote", json={"version": 1, "reason": "calmer"})
    assert promoted.status_code == 200
    assert {key: promoted.json()[key] for key in ("number", "version", "kind", "by", "reason")} == {
        "number": 3, "version": 1, "kind": "promoted", "by": "anonymous", "reason": "calmer",
    }  # fmt: skip
    assert service.http.post(f"{url}/predict", json=content).json()["version"] == 1
    assert service.http.get(url).json()["champion"] == 1
    assert service.http.post(f"{url}/rollback").json()["version"] == 2
    assert service.http.post(f"{url}/predict", json=content).json()["version"] == 2
    assert [one["kind"] for one in service.http.get(f"{url}/promotions").json()["promotions"]] == [
        "rolled back", "promoted", "registered", "registered",
    ]  # fmt: skip
    assert [deed.action for deed in service.access.deeds(limit=9)] == ["roll_back", "promote"]


def test_what_cannot_be_promoted_is_refused(service: Any) -> None:
    """No such version or model: 404; nothing to go back to: 409; no version at all: 422; nothing has changed."""
    service.model()
    url = "/v1/models/digits"
    assert service.http.post(f"{url}/promote", json={"version": 2}).status_code == 404
    assert service.http.post("/v1/models/nobody/promote", json={"version": 1}).status_code == 404
    assert service.http.post("/v1/models/nobody/rollback").status_code == 404
    assert service.http.get("/v1/models/nobody/promotions").status_code == 404
    assert service.http.post(f"{url}/rollback").status_code == 409
    assert service.http.post(f"{url}/promote", json={}).status_code == 422
    assert len(service.store.promotions("digits")) == 1


def test_a_version_whose_files_are_gone_does_not_become_champion(service: Any) -> None:
    """It is loaded before it answers; the champion stays."""
    first = service.model(seed=1)
    service.model(seed=2)
    (Path(first.path) / "model.json").unlink()
    assert service.http.post("/v1/models/digits/promote", json={"version": 1}).status_code == 503
    assert service.store.champion("digits").version == 2


def test_a_rollback_is_done_whatever_can_be_loaded(service: Any) -> None:
    """It is the way out. Where the version's files are there, it is in memory before it answers."""
    versions = [service.model(seed=seed) for seed in range(3)]
    assert service.http.post("/v1/models/digits/rollback").json()["version"] == 2
    assert [one["version"] for one in service.http.get("/v1/models/digits").json()["loaded"]] == [2]
    (Path(versions[0].path) / "model.json").unlink()
    assert service.http.post("/v1/models/digits/rollback").json()["version"] == 1
    assert service.store.champion("digits").version == 1


def test_a_model_tells_what_runs_it(service: Any) -> None:
    """Those of its versions that are in memory, and by which engine."""
    service.model()
    assert service.http.get("/v1/models/digits").json()["loaded"] == []
    service.http.post("/v1/models/digits/predict", json=_json(_png(IMAGES[0])))
    loaded = service.http.get("/v1/models/digits").json()["loaded"]
    assert loaded == [{"version": 1, "engine": "eager", "ready": True, "notes": []}]


def test_a_large_image_is_answered_as_a_small_one(service: Any) -> None:
    """Decoded on its own, and fitted all the same."""
    version = service.model()
    image = np.random.default_rng(5).integers(0, 256, (700, 500), dtype=np.uint8)
    answer = service.http.post("/v1/models/digits/predict", json=_json(_png(image))).json()
    (expected,) = load_model(Path(version.path)).predict([image])
    assert answer["predictions"][0]["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
