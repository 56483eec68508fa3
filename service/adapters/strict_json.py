"""JSON that every database and every parser takes, and that still keeps NaN and the infinities.

RFC 8259 has no such numbers, and PostgreSQL refuses Python's `NaN`. They are written as `{"$float": "nan"}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_MARK = "$float"


def encode(value: Any) -> str:
    """The value as JSON text.

    Raises:
        TypeError: it holds something that JSON has not.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:  # rare, so that ordinary values are not walked through in Python
        return json.dumps(_marked(value), allow_nan=False)


def decode(text: str | bytes) -> Any:
    """The value that `encode` wrote."""
    return json.loads(text, object_hook=_unmarked)


def _marked(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, Mapping):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    return value


def _unmarked(value: dict[str, Any]) -> Any:
    return float(value[_MARK]) if value.keys() == {_MARK} else value
