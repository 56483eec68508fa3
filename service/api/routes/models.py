"""Models: what sweeps found, answering about images."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from service.api.json_body import json_body, read_json
from service.api.parts import Here
from service.api.views import Models, ModelVersions, ModelView, Predictions
from service.domain import BadImage, TooLarge
from service.inference.images import Pixels, decode

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(here: Here) -> Models:
    """The newest version of every model."""
    return Models(models=[ModelView.model_validate(version) for version in here.store.models()])


@router.get("/{name}")
def get_model(name: str, here: Here) -> ModelVersions:
    """The versions of a model, newest first; the first one answers."""
    here.predictors.champion(name)
    versions = here.store.model_versions(name)
    return ModelVersions(name=name, versions=[ModelView.model_validate(version) for version in versions])


async def _sent(request: Request, here: Here) -> AsyncIterator[FormData | bytes]:
    """What was sent, read and not yet understood: the event loop has other requests to serve."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        yield await json_body(request)
        return
    try:
        form = await request.form(max_files=here.settings.max_images)
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise _too_many(here) from error
        raise
    try:
        yield form
    finally:
        await form.close()


_IMAGES: dict[str, Any] = {"type": "array", "minItems": 1, "description": "PNG, JPEG, BMP, TIFF or WebP"}


@router.post(
    "/{name}/predict",
    openapi_extra={
        "requestBody": {
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
            },
        }
    },
)
def predict(name: str, sent: Annotated[FormData | bytes, Depends(_sent)], here: Here) -> Predictions:
    """What the newest version of a model says about one or many images."""
    here.predictors.champion(name)  # no model: no need to look at any image
    images = list(_decoded(sent, here))
    prediction = here.predictors.predict(name, images)
    return Predictions(
        model=name,
        version=prediction.version.version,
        sweep_id=prediction.version.sweep_id,
        trial_id=prediction.version.trial_id,
        predictions=prediction.answers,
    )


def _decoded(sent: FormData | bytes, here: Here) -> Iterator[Pixels]:
    left = here.settings.max_image_pixels
    for name, data in _files(sent, here):
        try:
            image = decode(data, max_pixels=left)
        except BadImage as error:
            raise BadImage(f"{name} cannot be read: {error}") from error
        except TooLarge as error:
            together = f"{here.settings.max_image_pixels} together (SWEEPSERVE_MAX_IMAGE_PIXELS)"
            raise TooLarge(f"{name} is too large: {error}; all images of a request may have {together}") from error
        left -= image.shape[0] * image.shape[1]
        yield image


def _files(sent: FormData | bytes, here: Here) -> Iterator[tuple[str, bytes]]:
    """Each image's bytes, with what to call it in an error."""
    if isinstance(sent, FormData):
        parts = sent.multi_items()
        if not parts:
            raise _fault("images", "need at least one file")
        for i, (field, part) in enumerate(parts):
            if not isinstance(part, UploadFile):
                raise _fault(field, f"need files only, got a text in {field!r} (curl sends files with -F images=@FILE)")
            yield f"images[{i}] ({part.filename})", part.file.read()
        return
    document = read_json(sent)
    texts = document.get("images") if isinstance(document, dict) else None
    if not isinstance(texts, list) or not texts or set(document) != {"images"}:
        raise _fault("images", 'need {"images": ["<base64>", ...]} with at least one image, or a multipart form')
    if len(texts) > here.settings.max_images:
        raise _too_many(here)
    for i, text in enumerate(texts):
        try:
            yield f"images[{i}]", base64.b64decode(text, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise BadImage(f"images[{i}] cannot be read: need base64 (RFC 4648), {error}") from error


def _too_many(here: Here) -> TooLarge:
    return TooLarge(f"need at most {here.settings.max_images} images at a time (SWEEPSERVE_MAX_IMAGES)")


def _fault(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", field), "msg": message}])
