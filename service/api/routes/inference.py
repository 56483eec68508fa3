"""The Open Inference Protocol, version 2: models as any client of Triton, KServe or OpenVINO Model Server asks them."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Request, Response
from torch import Tensor

from service.api.forwarding import Forwarded
from service.api.parts import Asked
from service.api.strict_json import StrictJSON
from service.api.unless_gone import unless_gone
from service.errors import BadRequest, NotFound, Unavailable
from service.inference.answers import tensors
from service.inference.tensors import INPUT, read_request, write_response
from service.inference.uploads import SMALL_FILE
from trainables.saved_model import SavedModel

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], route_class=Forwarded)
HEADER_LENGTH = "Inference-Header-Content-Length"
PLATFORM = "pytorch_safetensors"
_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "Not ready", "content": {"application/json": {"schema": {"type": "object"}}}}
}


@router.get("", response_class=StrictJSON)
@router.get("/", include_in_schema=False)
def get_server() -> dict[str, Any]:
    """What this server is."""
    return {"name": "sweepserve", "version": "1", "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def is_live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready", responses=_NOT_READY)
async def is_ready(here: Asked) -> Response:
    """Every pinned model is loaded: 200, else 503."""
    loaded = {model.version.name for model in here.predictors.loaded()}
    ready = loaded.issuperset(here.predictors.serving.pinned)
    return StrictJSON({"live": True, "ready": ready}, status_code=200 if ready else 503)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}", name="get_model_version_metadata")
async def get_model_metadata(name: str, here: Asked, version: str | None = None) -> dict[str, Any]:
    """A model's tensors; -1: any number."""
    model = await here.predictors.model(name, _number(name, version))
    versions = here.predictors.known_versions(name)
    shape = [-1, *model.saved.preprocessing.input_shape]
    return {
        "name": name,
        "versions": [str(one.version) for one in await versions],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": shape}],
        "outputs": [
            {"name": output, "datatype": datatype, "shape": [-1, *rest]}
            for output, (datatype, rest) in model.tensors.items()
        ],
        "properties": {
            "family": model.saved.family,
            "engine": model.choice.engine.name,
            "sweep_id": model.version.sweep_id,
            "trial_id": model.version.trial_id,
        },
    }


@router.get("/models/{name}/ready", responses=_NOT_READY)
@router.get("/models/{name}/versions/{version}/ready", name="is_model_version_ready", responses=_NOT_READY)
async def is_model_ready(name: str, here: Asked, version: str | None = None) -> Response:
    """The model is in memory, or is now."""
    try:
        await here.predictors.model(name, _number(name, version))
    except Unavailable:
        return StrictJSON({"name": name, "ready": False}, status_code=503)
    return StrictJSON({"name": name, "ready": True})


@router.post("/models/{name}/infer", response_class=StrictJSON)
@router.post("/models/{name}/versions/{version}/infer", name="infer_version", response_class=StrictJSON)
async def infer(name: str, request: Request, here: Asked, version: str | None = None) -> Response:
    """The model's outputs, and what they mean, for images `[n, channels, rows, columns]` of pixels from 0 to 255.

    Tensors come and go as JSON or as raw bytes. A recurrent model takes the request parameters `steps` and, for its
    outputs after each of them, `[n, steps, ...]`, `evolution`.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadRequest("need a body that is not compressed")
    model = await here.predictors.model(name, _number(name, version))
    body = await request.body()
    read = partial(
        read_request,
        body,
        request.headers.get(HEADER_LENGTH),
        input_shape=model.saved.preprocessing.input_shape,
        outputs=list(model.tensors),
        max_images=here.settings.max_images,
    )
    # In a thread where it takes so long that the event loop would notice.
    asked = read() if len(body) <= SMALL_FILE else await anyio.to_thread.run_sync(read)
    head = {"model_name": name, "model_version": str(model.version.version)}
    if asked.id is not None:
        head["id"] = asked.id

    def write(saved: SavedModel, outputs: Tensor) -> tuple[bytes, int | None]:
        found = tensors(saved.task, outputs, evolution=asked.evolution)
        return write_response(head, {key: _array(tensor) for key, tensor in found.items()}, asked.outputs)

    work = here.predictors.predict(
        model,
        asked.images,
        write,
        steps=asked.steps,
        evolution=asked.evolution,
        max_pixels=here.settings.max_image_pixels,
    )
    content, header_length = (await unless_gone(request, work)).answer
    if header_length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(header_length)})


def _number(name: str, version: str | None) -> int | None:
    if version is None:
        return None
    if not (version.isascii() and version.isdecimal() and 0 < len(version) < 10):
        raise NotFound(f"there is no version {version} of model {name!r}")
    return int(version)


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return array
