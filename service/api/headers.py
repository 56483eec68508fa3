"""The headers of a request, as ASGI has them."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str:
    """The first header of that name, which is in small letters; empty where there is none.

    Each request comes through here several times, and Starlette's `Headers` take ten times as long.
    """
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""
