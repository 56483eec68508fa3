"""Studies for small machines: a spec's `scale` is a JSON merge patch (RFC 7386) over the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def scaled(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep spec with its `scale` applied and taken out.

    Raises:
        ValueError: it has none.
    """
    scale = document.get("scale")
    if not isinstance(scale, Mapping):
        raise ValueError("need a `scale`, a mapping of what is smaller, and it has none")
    patched: dict[str, Any] = merged(full(document), scale)
    return patched


def full(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep spec without its `scale`."""
    return {key: value for key, value in document.items() if key != "scale"}


def merged(target: Any, patch: Any) -> Any:
    """The document with a JSON merge patch (RFC 7386) applied: nulls take out, mappings go into mappings."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
