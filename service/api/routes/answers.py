"""Models, answering about images."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import anyio.to_thread
import orjson
import pybase64
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from torch import Tensor

from service.api.forwarding import Forwarded
from service.api.json_body import json_body
from service.api.pages import Limit, PageToken, page, place
from service.api.parts import Asked
from service.api.unless_gone import unless_gone
from service.api.versions import VERSIONED, Versioned
from service.api.views import EngineView, ModelVersions, ModelView, Predictions
from service.errors import BadImage, TooLarge
from service.inference.answers import answers
from service.inference.loaded_model import MAX_STEPS
from service.inference.masks import with_png_masks
from service.inference.uploads import SMALL_FILE, Upload
from trainables.saved_model import SavedModel

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Forwarded)
_IMAGES: dict[str, Any] = {"type": "array", "minItems": 1, "description": "PNG, JPEG, BMP, TIFF or WebP"}
_ONE_IMAGE = {"schema": {"type": "string", "format": "binary", "description": "One image"}}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"images": {**_IMAGES, "items": {"type": "string", "format": "binary"}}},
                "required": ["images"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"images": {**_IMAGES, "items": {"type": "string", "contentEncoding": "base64"}}},
                "required": ["images"],
                "additionalProperties": False,
            }
        },
        **dict.fromkeys(("image/*", "application/octet-stream"), _ONE_IMAGE),
    },
}


@router.get("/{name}", responses=VERSIONED)
def get_model(
    name: str, here: Asked, version: Versioned, limit: Limit = 100, page_token: PageToken = None
) -> ModelVersions:
    """A model: which version answers, what runs those that are in memory, and all versions, newest first, in pages."""
    (before,) = place(page_token, int) or (None,)
    champion = here.store.champion(name)
    known = here.store.model_versions(name, limit=limit + 1, before=before)
    versions, token = page(known, limit, lambda one: (one.version,))
    found = ModelVersions(
        name=name,
        champion=champion.version,
        versions=[ModelView.model_validate(one) for one in versions],
        loaded=[
            EngineView(
                version=model.version.version,
                engine=model.choice.engine.name,
                ready=model.ready,
                notes=list(model.choice.notes),
            )
            for model in here.predictors.loaded(name)
        ],
        next_page_token=token,
    )
    version.is_(found.model_dump())
    return found


@router.post("/{name}/predict", response_model=Predictions, openapi_extra={"requestBody": _BODY})
async def predict(
    name: str,
    request: Request,
    here: Asked,
    version: Annotated[int | None, Query(ge=1, description="This version, not the champion")] = None,
    sweep: Annotated[str | None, Query(description="The newest version that this sweep made")] = None,
    steps: Annotated[
        int | None, Query(ge=1, le=MAX_STEPS, description="A recurrent model's steps; as trained if left out")
    ] = None,
    evolution: Annotated[
        bool, Query(description="Of a recurrent model: also the answers after each step, from one run")
    ] = False,
    masks: Annotated[Literal["rle", "png"], Query(description="Masks as run lengths, or as PNG in base64")] = "rle",
) -> Response:
    """What a model says about one or many images: in a form, in JSON, or one as the body itself."""
    model = await here.predictors.model(name, version, sweep)  # no model: no need to look at any image
    uploads = await _uploads(request, here)
    asked = model.version
    head = {"model": name, "version": asked.version, "sweep_id": asked.sweep_id, "trial_id": asked.trial_id}

    def write(saved: SavedModel, outputs: Tensor) -> bytes:
        found = answers(saved.task, outputs, evolution=evolution)
        if masks == "png":
            found = [with_png_masks(answer) for answer in found]
        return orjson.dumps({**head, "predictions": found})

    work = here.predictors.predict(
        model, uploads, write, steps=steps, evolution=evolution, max_pixels=here.settings.max_image_pixels
    )
    prediction = await unless_gone(request, work)
    return Response(prediction.answer, media_type="application/json")


async def _uploads(request: Request, here: Asked) -> Sequence[Upload]:
    """The images that were sent, each with what to call it in an error."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _form(request, here)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        uploads = [Upload("the image", await request.body())]
    else:
        body = await json_body(request)
        # In a thread where it takes so long that the event loop would notice.
        uploads = _json(body) if len(body) <= SMALL_FILE else await anyio.to_thread.run_sync(_json, body)
    if len(uploads) > here.settings.max_images:
        raise _too_many(here)
    return uploads


async def _form(request: Request, here: Asked) -> list[Upload]:
    try:
        form = await request.form(max_files=here.settings.max_images)
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise _too_many(here) from error
        raise
    try:
        parts = form.multi_items()
        if not parts:
            raise _fault("images", "need at least one file")
        uploads = []
        for i, (field, part) in enumerate(parts):
            if not isinstance(part, UploadFile):
                raise _fault(field, f"need files only, got a text in {field!r} (curl sends files with -F images=@FILE)")
            uploads.append(Upload(f"images[{i}] ({part.filename})", await part.read()))
        return uploads
    finally:
        await form.close()


def _json(body: bytes) -> list[Upload]:
    try:
        document = orjson.loads(body)
    except ValueError as error:
        raise RequestValidationError([{"loc": ("body",), "msg": f"the body is not JSON: {error}"}]) from error
    texts = document.get("images") if isinstance(document, dict) else None
    if not isinstance(texts, list) or not texts or set(document) != {"images"}:
        raise _fault("images", 'need {"images": ["<base64>", ...]} with at least one image, or a multipart form')
    uploads = []
    for i, text in enumerate(texts):
        try:
            uploads.append(Upload(f"images[{i}]", pybase64.b64decode(text, validate=True)))
        except (TypeError, ValueError, binascii.Error) as error:
            raise BadImage(f"images[{i}] cannot be read: need base64 (RFC 4648), {error}") from error
    return uploads


def _too_many(here: Asked) -> TooLarge:
    return TooLarge(f"need at most {here.settings.max_images} images at a time (SWEEPSERVE_MAX_IMAGES)")


def _fault(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", field), "msg": message}])
