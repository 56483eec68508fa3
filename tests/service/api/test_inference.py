"""The Open Inference Protocol, asked by Triton's own client and by hand."""

from __future__ import annotations

import json
import math
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import BadRequest
from service.inference.serving_config import Serving, ServingTable
from service.inference.tensors import read_request
from trainables.saved_model import load_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent, which it brings, warns of the interpreter's version
    import tritonclient.http as triton

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 1, 16, 16), dtype=np.uint8)
URL = "/v2/models/digits/infer"


@pytest.fixture(name="client")
def _client(service: Any, serve: Callable[..., str]) -> Iterator[Any]:
    with triton.InferenceServerClient(serve(service.app).removeprefix("http://")) as client:
        yield client


def _expected(service: Any) -> dict[str, Any]:
    model = load_model(Path(service.store.champion("digits").path))
    images = [image[0] for image in IMAGES]
    outputs = model.outputs(images)
    return {"outputs": outputs.numpy(), "probabilities": model.task.probabilities(outputs).numpy()}


def _tensor(binary: bool) -> Any:
    tensor = triton.InferInput("images", list(IMAGES.shape), "UINT8")
    tensor.set_data_from_numpy(IMAGES, binary_data=binary)
    return tensor


def test_tritons_client_learns_what_there_is(service: Any, client: Any) -> None:
    """Live, ready, the server, the model and its tensors, and that a model is not there."""
    service.model(seed=1)
    service.model(seed=2)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata() == {
        "name": "sweepserve",
        "version": "1",
        "extensions": ["binary_tensor_data"],
    }
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("digits", "3")
    metadata = client.get_model_metadata("digits", "1")
    assert metadata["versions"] == ["2", "1"]
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 16, 16]}]
    assert metadata["outputs"] == [
        {"name": "outputs", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("got", [True, False])
def test_tritons_client_infers_in_json_and_binary(service: Any, client: Any, sent: bool, got: bool) -> None:
    """Either way in, either way out: the saved model's numbers, the version that gave them, the request's id."""
    service.model(seed=1)
    wanted = [triton.InferRequestedOutput(name, binary_data=got) for name in ("probabilities", "outputs")]
    result = client.infer("digits", [_tensor(sent)], outputs=wanted, request_id="seven")
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "1", "seven")
    for name, numbers in _expected(service).items():
        np.testing.assert_allclose(result.as_numpy(name), numbers, atol=1e-5)


def test_all_outputs_come_where_none_is_named(service: Any, client: Any) -> None:
    """As raw tensors for Triton's client, which asks for that; of a chosen version."""
    service.model(seed=1)
    service.model(seed=2)
    result = client.infer("digits", [_tensor(True)], model_version="1")
    assert result.get_response()["model_version"] == "1"
    assert {output["name"] for output in result.get_response()["outputs"]} == {"outputs", "probabilities"}


def test_tritons_client_reads_our_errors(service: Any, client: Any) -> None:
    """The message is in its exception."""
    service.model()
    with pytest.raises(triton.InferenceServerException, match="there is no model named 'nobody' yet"):
        client.infer("nobody", [_tensor(True)])
    wanted = [triton.InferRequestedOutput("logits")]
    with pytest.raises(triton.InferenceServerException, match="outputs: need outputs or probabilities, got 'logits'"):
        client.infer("digits", [_tensor(True)], outputs=wanted)


def _request(**changes: Any) -> dict[str, Any]:
    data = IMAGES[:1].tolist()
    return {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 16, 16], "data": data, **changes}]}


def test_nested_and_flat_data_are_the_same(service: Any) -> None:
    """Row-major."""
    service.model()
    nested = service.http.post(URL, json=_request())
    flat = service.http.post(URL, json=_request(data=IMAGES[0].reshape(-1).tolist()))
    assert nested.status_code == 200
    assert nested.json() == flat.json()
    assert "id" not in nested.json()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], 'need {"inputs": [...]}'),
        ({"inputs": {}}, 'need {"inputs": [...]}'),
        ({"inputs": []}, "need one input, named 'images', got []"),
        ({"inputs": [7]}, "need one input, named 'images', got [None]"),
        (_request(name="pixels"), "need one input, named 'images', got ['pixels']"),
        (_request(datatype="FP32"), "need the datatype UINT8, pixels from 0 to 255, got 'FP32'"),
        (_request(datatype=None), "need the datatype UINT8"),
        (_request(shape=[1, 16, 16]), "need the shape [n, 1, 16, 16] with n >= 1, got [1, 16, 16]"),
        (_request(shape=[0, 1, 16, 16], data=[]), "need the shape [n, 1, 16, 16] with n >= 1"),
        (_request(shape=[-1, 1, 16, 16]), "need a shape of whole numbers"),
        (_request(shape=[1.0, 1, 16, 16]), "need a shape of whole numbers"),
        (_request(shape="16"), "need a shape of whole numbers"),
        (_request(shape=[2, 1, 16, 16]), "the shape has 512 numbers, the data 256"),
        (_request(data=[1, [2]]), "the data are no tensor"),
        (_request(data=None), "need data of whole numbers only"),
        (_request(data=[[1], [2, 3]]), "the data are no tensor"),
        (_request(data={"0": 7}), "need data of whole numbers only"),
        (_request(data=["7"] * 256), "need data of whole numbers only"),
        (_request(data=[True] * 256), "need data of whole numbers only"),
        (_request(data=[*[7] * 255, None]), "need data of whole numbers only"),
        (_request(data=[0.5] * 256), "need data of whole numbers only"),
        (_request(data=[256] * 256), "need numbers from 0 to 255, got 256 to 256"),
        (_request(data=[-1] * 256), "need numbers from 0 to 255, got -1 to -1"),
        (_request(data=[2**64] * 256), "need data of whole numbers only"),
        (_request(parameters={"binary_data_size": 256}), "need either data or binary_data_size, got both"),
        (_request(parameters=[1]), "parameters: need an object"),
        ({**_request(), "id": 7}, "id: need a text"),
        ({**_request(), "outputs": "all"}, "outputs: need a list of objects"),
        ({**_request(), "outputs": [{"name": "logits"}]}, "outputs: need outputs or probabilities, got 'logits'"),
        ({**_request(), "parameters": {"steps": 2}}, "steps: need a recurrent model"),
        ({**_request(), "parameters": {"steps": "2"}}, "steps: need a whole number"),
        ({**_request(), "parameters": {"binary_data_output": 1}}, "binary_data_output: need true or false"),
    ],
)
def test_what_is_no_question_for_the_model_is_a_400_in_the_protocols_form(
    service: Any, document: Any, reason: str
) -> None:
    """`{"error": ...}` and nothing else, with the rule and the value."""
    service.model()
    answer = service.http.post(URL, json=document)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    assert reason in answer.json()["error"]


def test_a_long_text_among_the_numbers_takes_no_memory() -> None:
    """As an array of NumPy, texts take the room of the longest one each: 40 MB of these 15 KB."""
    body = json.dumps(_request(data=["x" * 5000, *["a"] * 2000])).encode()
    tracemalloc.start()
    with pytest.raises(BadRequest, match="need data of whole numbers only"):
        read_request(body, None, input_shape=(1, 16, 16), outputs=["outputs"], max_images=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(("count", "elsewhere"), [(1, False), (256, True)])
def test_a_large_body_is_not_read_by_the_event_loop(
    service: Any, portal: Any, monkeypatch: pytest.MonkeyPatch, count: int, elsewhere: bool
) -> None:
    """Everybody would wait for it; a small one takes less time than going to a thread."""
    service.model()
    threads: list[int] = []

    def read(*arguments: Any, **named: Any) -> Any:
        threads.append(threading.get_ident())
        return read_request(*arguments, **named)

    monkeypatch.setattr("service.api.routes.inference.read_request", read)
    answer = service.http.post(URL, json=_request(shape=[count, 1, 16, 16], data=[0] * 256 * count))
    assert answer.status_code == 200
    assert (threads != [portal.call(threading.get_ident)]) is elsewhere


def _raw(length: Any, body: bytes, document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document).encode()
    return {
        "content": text + body,
        "headers": {"Inference-Header-Content-Length": str(len(text) if length is None else length)},
    }


@pytest.mark.parametrize(
    ("length", "body", "size", "reason"),
    [
        (None, b"\0" * 255, 256, "the shape has 256 bytes, binary_data_size is 256, 255 bytes came"),
        (None, b"\0" * 256, 255, "the shape has 256 bytes, binary_data_size is 255"),
        (None, b"\0" * 257, 256, "1 bytes are left after the input's"),
        (None, b"\0" * 256, "256", "the shape has 256 bytes, binary_data_size is 256"),
        (9999999, b"\0" * 256, 256, "need at most the"),
        ("-1", b"\0" * 256, 256, "need a whole number, got '-1'"),
        (3, b"\0" * 256, 256, "the body is not JSON"),
    ],
)
def test_raw_tensors_must_be_what_their_header_says(
    service: Any, length: Any, body: bytes, size: Any, reason: str
) -> None:
    """Too few bytes, too many, other sizes, a header that ends elsewhere."""
    service.model()
    tensor = {
        "name": "images", "datatype": "UINT8", "shape": [1, 1, 16, 16], "parameters": {"binary_data_size": size}
    }  # fmt: skip
    answer = service.http.post(URL, **_raw(length, body, {"inputs": [tensor]}))
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_a_tensor_of_nan_is_refused(service: Any) -> None:
    """As raw floats it has the wrong datatype; in JSON there is no such number."""
    service.model()
    floats = np.full((1, 1, 16, 16), math.nan, np.float32)
    tensor = {
        "name": "images", "datatype": "FP32", "shape": [1, 1, 16, 16], "parameters": {"binary_data_size": 1024}
    }  # fmt: skip
    answer = service.http.post(URL, **_raw(None, floats.tobytes(), {"inputs": [tensor]}))
    assert (answer.status_code, answer.json()["error"][:36]) == (400, "images: need the datatype UINT8, pix")
    text = json.dumps(_request(data=[math.nan] * 256))
    answer = service.http.post(URL, content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]


def test_limits_have_their_own_statuses(make_service: Callable[..., Any]) -> None:
    """Too many images or bytes: 413; a compressed body, an odd version: a 4xx; all in the protocol's form."""
    service = make_service(max_images=2, max_body_bytes=5000)
    service.model()
    many = _request(shape=[3, 1, 16, 16], data=[0] * 768)
    answers = [
        service.http.post(URL, json=many),
        service.http.post(URL, content=b"x" * 5001),
        service.http.post(URL, json=_request(), headers={"content-encoding": "gzip"}),
        service.http.post("/v2/models/digits/versions/one/infer", json=_request()),
        service.http.get("/v2/models/digits/versions/7"),
        service.http.get("/v2/nothing"),
    ]
    assert [answer.status_code for answer in answers] == [413, 413, 400, 404, 404, 404]
    assert all(answer.json().keys() == {"error"} for answer in answers)


def test_the_server_is_ready_once_its_pinned_models_are(make_service: Callable[..., Any]) -> None:
    """503 before that; it is live all the time, with a slash after /v2 or without."""
    service = make_service()
    predictors = service.app.state.parts.predictors
    predictors.serving = ServingTable({"digits": Serving(engine="eager", pinned=True)}, predictors.serving.others)
    waiting = service.http.get("/v2/health/ready")
    assert (waiting.status_code, waiting.json()) == (503, {"live": True, "ready": False})
    service.model()
    assert service.http.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    assert service.http.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert service.http.get("/v2/health/live").json() == {"live": True}
    assert service.http.get("/v2").json() == service.http.get("/v2/").json()
