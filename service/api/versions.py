"""Answers that are asked for again and again have an ETag; who has the very version already is answered 304."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, final

from fastapi import Depends, Header, Request, Response, status

_ETAG = {"ETag": {"description": "The version of this answer", "schema": {"type": "string"}}}
VERSIONED: dict[int | str, dict[str, Any]] = {
    200: {"headers": _ETAG},
    304: {"description": "It is still as `If-None-Match` has it", "headers": _ETAG},
}
"""What such a route answers, for its description."""


class NotModified(Exception):  # noqa: N818 - it is no error
    """The caller has this version."""

    def __init__(self, etag: str) -> None:
        super().__init__(etag)
        self.etag = etag


@final
class Version:
    """Which version of an answer the caller has already (RFC 9110, section 13.1.2)."""

    def __init__(
        self,
        response: Response,
        if_none_match: Annotated[
            str | None, Header(description="The `ETag` of an earlier answer; 304 without a body: it is still so")
        ] = None,
    ) -> None:
        self._response = response
        self._known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}

    def is_(self, *state: object) -> None:
        """Says which version the answer is, by all that it depends on; best before any of it is read in full.

        Raises:
            NotModified: it is the caller's own.
        """
        text = json.dumps(state, default=str)
        tag = f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
        if not self._known.isdisjoint({tag, "*"}):
            raise NotModified(f"W/{tag}")
        self._response.headers["ETag"] = f"W/{tag}"


Versioned = Annotated[Version, Depends()]
"""The version, as an argument of a route."""


def not_modified(_: Request, error: Exception) -> Response:
    """How `NotModified` is answered."""
    assert isinstance(error, NotModified)
    return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": error.etag})
