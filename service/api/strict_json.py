"""Answers in JSON by RFC 8259. It has no NaN and no infinities: `NaN`, `Infinity` and `-Infinity` are texts here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse


class StrictJSON(JSONResponse):
    """JSON that every parser takes."""

    def render(self, content: Any) -> bytes:
        """The content as UTF-8; half a character, which UTF-8 has not, is a question mark."""
        try:
            text = _dump(content)
        except ValueError:  # rare, so that ordinary answers are not walked through in Python
            text = _dump(without_nan(content))
        return text.encode(errors="replace")


def without_nan(value: Any) -> Any:
    """The same plain data with a text for each number that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value


def _dump(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
