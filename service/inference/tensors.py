"""Tensors as the Open Inference Protocol (v2) sends them: in JSON, or raw after it (the binary tensor extension).

https://github.com/kserve/open-inference-protocol, and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import numpy as np
import numpy.typing as npt
import orjson

from service.errors import BadRequest, TooLarge
from service.inference.engine import Images

INPUT = "images"
DATATYPES: Mapping[str, str] = {
    "<f4": "FP32",
    "<f8": "FP64",
    "<i8": "INT64",
    "<i4": "INT32",
    "|u1": "UINT8",
    "|b1": "BOOL",
}


@final
@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks: about which images, for which of the model's tensors."""

    id: str | None
    images: Images
    steps: int | None
    """Of a recurrent model, in the request's parameter `steps`."""
    evolution: bool
    """The outputs after each step are wanted, by the request's parameter `evolution`."""
    outputs: Mapping[str, bool]
    """The tensors that are wanted, and whether as raw bytes."""


def read_request(
    body: bytes,
    header_length: str | None,
    *,
    input_shape: tuple[int, int, int],
    outputs: Sequence[str],
    max_images: int,
) -> InferRequest:
    """A request's body.

    Args:
        body: JSON, and raw tensors after it where there is a header length.
        header_length: `Inference-Header-Content-Length`, the bytes of the JSON; None: all of them.
        input_shape: (channels, rows, columns) that the model takes.
        outputs: names of the tensors that it gives.
        max_images: so many at a time.

    Raises:
        BadRequest: anything else than one tensor `images` of that shape, or tensors that the model has not.
        TooLarge: too many images.
    """
    text, raw = _split(body, header_length)
    try:
        document = orjson.loads(text)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise BadRequest('need {"inputs": [...]}')
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise BadRequest("id: need a text")
    parameters = _parameters(document, "parameters")
    names = [one.get("name") if isinstance(one, dict) else None for one in document["inputs"]]
    if names != [INPUT]:
        raise BadRequest(f"need one input, named {INPUT!r}, got {names}")
    (given,) = document["inputs"]
    shape = _shape(given, input_shape, max_images)
    images, raw = _images(given, shape, raw)
    if raw:
        raise BadRequest(f"{len(raw)} bytes are left after the input's")
    return InferRequest(
        identity,
        images,
        _steps(parameters),
        _flag(parameters, "evolution", False),
        _wanted(document.get("outputs"), outputs, _flag(parameters, "binary_data_output", False)),
    )


def write_response(
    head: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], raw: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where raw tensors follow.

    Args:
        head: `model_name`, `model_version`, `id`.
        tensors: by name.
        raw: which of them are sent, in which order, and whether as raw bytes.
    """
    outputs, appended = [], []
    for name, as_bytes in raw.items():
        tensor = np.ascontiguousarray(tensors[name])
        output: dict[str, Any] = {"name": name, "datatype": datatype(tensor), "shape": list(tensor.shape)}
        if as_bytes:
            appended.append(tensor.tobytes())
            output["parameters"] = {"binary_data_size": tensor.nbytes}
        else:
            output["data"] = tensor.reshape(-1)
        outputs.append(output)
    text = orjson.dumps({**head, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *appended]), len(text) if appended else None


def datatype(tensor: npt.NDArray[Any]) -> str:
    """The protocol's name of the tensor's type."""
    return DATATYPES[tensor.dtype.str]


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 12):
        raise BadRequest(f"Inference-Header-Content-Length: need a whole number, got {header_length!r}")
    at = int(header_length)
    if at > len(body):
        raise BadRequest(f"Inference-Header-Content-Length: need at most the {len(body)} bytes of the body, got {at}")
    return body[:at], body[at:]


def _parameters(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    parameters = document.get(key)
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not all(isinstance(one, str | int | float) for one in parameters.values()):
        raise BadRequest(f"{key}: need an object of texts, numbers and booleans")
    return parameters


def _shape(given: Mapping[str, Any], input_shape: tuple[int, int, int], max_images: int) -> tuple[int, ...]:
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise BadRequest(f"{INPUT}: need a shape of whole numbers, got {shape!r:.100}")
    if tuple(shape[1:]) != input_shape or not shape or shape[0] < 1:
        raise BadRequest(
            f"{INPUT}: need the shape [n, {', '.join(map(str, input_shape))}] with n >= 1, got {shape!r:.100}"
        )
    if shape[0] > max_images:
        raise TooLarge(f"need at most {max_images} images at a time (SWEEPSERVE_MAX_IMAGES), got {shape[0]}")
    return tuple(shape)


def _images(given: Mapping[str, Any], shape: tuple[int, ...], raw: bytes) -> tuple[Images, bytes]:
    """The tensor, and the raw bytes after it."""
    if given.get("datatype") != "UINT8":
        raise BadRequest(f"{INPUT}: need the datatype UINT8, pixels from 0 to 255, got {given.get('datatype')!r:.50}")
    count = math.prod(shape)
    size = _parameters(given, "parameters").get("binary_data_size")
    if size is not None:
        if "data" in given:
            raise BadRequest(f"{INPUT}: need either data or binary_data_size, got both")
        if size != count or len(raw) < count or type(size) is not int:
            raise BadRequest(f"{INPUT}: the shape has {count} bytes, binary_data_size is {size}, {len(raw)} bytes came")
        return np.frombuffer(raw[:count], np.uint8).reshape(shape), raw[count:]
    pixels = _numbers(given.get("data"), count)
    try:
        return np.frombuffer(bytes(pixels), np.uint8).reshape(shape), raw
    except ValueError:
        message = f"{INPUT}: need numbers from 0 to 255, got {min(pixels)} to {max(pixels)}"
        raise BadRequest(message) from None


def _numbers(data: Any, count: int) -> list[int]:
    """So many whole numbers, row-major, out of a list of them or of lists of lists of the same length.

    All of it is looked at before anything is made of it: NumPy would make room for the longest text in every place.
    """
    kinds = set(map(type, data)) if isinstance(data, list) else set()
    while kinds == {list}:
        lengths = set(map(len, data))
        if len(lengths) > 1:
            raise BadRequest(f"{INPUT}: the data are no tensor: lists of {min(lengths)} to {max(lengths)} side by side")
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    if list in kinds:
        raise BadRequest(f"{INPUT}: the data are no tensor: lists and others side by side")
    if not isinstance(data, list) or not kinds <= {int}:
        raise BadRequest(f"{INPUT}: need data of whole numbers only")
    if len(data) != count:
        raise BadRequest(f"{INPUT}: the shape has {count} numbers, the data {len(data)}")
    return data


def _steps(parameters: Mapping[str, Any]) -> int | None:
    steps = parameters.get("steps")
    if steps is not None and type(steps) is not int:
        raise BadRequest(f"steps: need a whole number, got {steps!r:.50}")
    return steps


def _flag(parameters: Mapping[str, Any], key: str, otherwise: bool) -> bool:
    flag = parameters.get(key, otherwise)
    if not isinstance(flag, bool):
        raise BadRequest(f"{key}: need true or false, got {flag!r:.50}")
    return flag


def _wanted(requested: Any, outputs: Sequence[str], binary: bool) -> dict[str, bool]:
    if requested is None:
        return dict.fromkeys(outputs, binary)
    if not isinstance(requested, list) or not all(isinstance(one, dict) for one in requested):
        raise BadRequest("outputs: need a list of objects")
    wanted = {}
    for one in requested:
        if one.get("name") not in outputs:
            raise BadRequest(f"outputs: need {' or '.join(outputs)}, got {one.get('name')!r:.100}")
        wanted[one["name"]] = _flag(_parameters(one, "parameters"), "binary_data", binary)
    return wanted or dict.fromkeys(outputs, binary)
