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
        return _ENCODER.encode(value)
    except ValueError:  # rare, so that ordinary values are not walked through in Python
        return _ENCODER.encode(_marked(value))


def decode(text: str | bytes) -> Any:
    """The value that `encode` wrote."""
    return _DECODER.decode(text if isinstance(text, str) else text.decode())


def _marked(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, Mapping):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    return value


def _unmarked(value: dict[str, Any]) -> Any:
    return float(value[_MARK]) if len(value) == 1 and _MARK in value else value


# Made once: `json.dumps` and `json.loads` with options of ours would make them anew for each value.
_ENCODER = json.JSONEncoder(allow_nan=False)
_DECODER = json.JSONDecoder(object_hook=_unmarked)
