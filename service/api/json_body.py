"""A request's body as JSON."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request, status
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException


async def json_body(request: Request) -> bytes:
    """The bytes of a body that says it is JSON; the event loop has better to do than to read them.

    Raises:
        HTTPException: 415 where it does not say so. A page of another site can make a browser send a text or a form
            here without asking first, but not JSON.
    """
    kind = request.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        message = f"need Content-Type: application/json, got {kind} (with curl: -H 'Content-Type: application/json')"
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, message)
    return await request.body()


async def optional_json_body(request: Request) -> bytes:
    """The same, where an empty mapping may be left out."""
    if request.headers.get("content-length", "") in ("", "0") and "transfer-encoding" not in request.headers:
        return b"{}"
    return await json_body(request)


def read_json(body: bytes) -> Any:
    """The JSON document in a request's body.

    Raises:
        RequestValidationError: it is none, by RFC 8259.
    """
    try:
        document = json.loads(body, parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()  # half a character, "\\ud800", is no text
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestValidationError([{"loc": ("body",), "msg": f"the body is not JSON: {reason}"}]) from error
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")
