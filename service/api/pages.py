"""Lists in pages, all in one style: `limit`, `page_token`, and in the answer `next_page_token`.

A token is the place of a page's last one in the order of its list, so that what comes and goes meanwhile neither
repeats nor hides what stays (docs/decisions/0020-pages-and-versions.md).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Query
from fastapi.exceptions import RequestValidationError

MAX_PAGE = 1000
MAX_NUMBER = 2**53
"""Beyond it JSON's numbers are not exact, and soon those of databases end."""

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="So many at most")]
PageToken = Annotated[str | None, Query(description="The `next_page_token` of the page before")]

One = TypeVar("One")


def page(found: Sequence[One], limit: int, place: Callable[[One], Sequence[object]]) -> tuple[list[One], str | None]:
    """A page and the token of the next one; `found` has one more where there is one."""
    here = list(found[:limit])
    return here, _token(place(here[-1])) if len(found) > limit else None


def place(token: str | None, *kinds: type) -> Any:
    """The place that a token names, as values of these kinds (str, int, float, datetime); None: no token.

    Raises:
        RequestValidationError: it is no token of such a list.
    """
    if token is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        return tuple(_value(value, kind) for value, kind in zip(list(values), kinds, strict=True))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        message = f"need the next_page_token of an earlier answer, got {token!r}"
        raise RequestValidationError([{"loc": ("query", "page_token"), "msg": message}]) from error


def _token(values: Sequence[object]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).decode()


def _value(value: Any, kind: type) -> object:
    if kind is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind or (isinstance(value, int) and abs(value) > MAX_NUMBER):
        raise ValueError(value)
    return value
