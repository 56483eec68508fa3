"""A request's body as JSON."""

from __future__ import annotations

import json
from typing import Any

from fastapi.exceptions import RequestValidationError


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
