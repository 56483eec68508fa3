"""JSON values: what may stand in a space or a spec, and when two of them are the same."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

MAX_DEPTH = 16
"""Lists and mappings inside each other, at most: no setting needs more, and reading stays safe from deep documents."""
MAX_WHOLE = 2**53 - 1
"""Whole numbers up to here are exact in every JSON reader (RFC 7493, section 2.2)."""

Path = tuple[str | int, ...]
SpaceFault = tuple[Path, str]
"""Where in the document, and which rule was broken by which value."""


class SpaceError(ValueError):
    """A space, a parameter or a value broke its rules; `faults` lists every one as (path, message)."""

    def __init__(self, faults: Sequence[SpaceFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {text}" if path else text for path, text in faults))


def plain(value: Any) -> Any:
    """A copy that shares nothing with `value` and holds JSON types only; tuples become lists.

    Raises:
        SpaceError: naming each part that JSON cannot say, or cannot say exactly.
    """
    faults = list(_not_json(value))
    if faults:
        raise SpaceError(faults)
    return _copy(value)


def same(one: Any, other: Any) -> bool:
    """Two JSON values are equal: 1 and 1.0 are (both are numbers), 1 and true are not."""
    return key(one) == key(other)


def key(value: Any) -> Hashable:
    """Something hashable that is equal for equal JSON values and for no others."""
    if isinstance(value, (str, int, float)):  # nearly all are, and it is told fastest
        return isinstance(value, bool), value
    if isinstance(value, Mapping):
        return "mapping", frozenset((name, key(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(map(key, value))
    return isinstance(value, bool), value


def shown(value: Any) -> str:
    """The value in a message: cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _not_json(value: Any, path: Path = ()) -> Iterator[SpaceFault]:
    if len(path) > MAX_DEPTH:
        yield path, f"need at most {MAX_DEPTH} lists and mappings inside each other"
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(name, str):
                yield from _not_json(name, path)
                yield from _not_json(item, (*path, name))
            else:
                yield path, f"need texts as the names of a mapping, got {shown(name)}"
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _not_json(item, (*path, i))
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            yield path, f"need a text without NUL characters and lone surrogates, got {shown(value)}"
    elif isinstance(value, int):
        if abs(value) > MAX_WHOLE:
            yield path, f"need whole numbers between -(2**53 - 1) and 2**53 - 1, got {shown(value)}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield path, f"need a finite number, got {value!r}"
    elif value is not None:
        yield path, f"need a JSON value, got {shown(value)} ({type(value).__name__})"


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value
