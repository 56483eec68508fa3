"""One request followed through every process: W3C Trace Context (level 1), https://www.w3.org/TR/trace-context/.

A `traceparent` is `00-<trace id>-<span id>-<flags>`, 2, 32, 16 and 2 hexadecimal digits. The trace id stays the same
from the request to the sweep it submits, its Ray jobs, its runs in MLflow and every line logged on the way.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_random = random.Random()  # noqa: S311 - seeded by the kernel
_current: ContextVar[str] = ContextVar("traceparent", default="")


def child_of(traceparent: str) -> str:
    """A new span of the trace that this header tells; of a new trace where it tells none."""
    form = _FORM.fullmatch(traceparent)
    if form is None or not _is_legal(*form.groups()):
        digits = _digits(48)
        return f"00-{digits[:32]}-{digits[32:]}-01"
    return f"00-{form[2]}-{_digits(16)}-{form[4]}"


def trace_id(traceparent: str) -> str:
    """Its 32 digits; empty where there is none."""
    return traceparent[3:35]


def current() -> str:
    """The `traceparent` of what is being done here; empty: nobody asked for it."""
    return _current.get()


@contextmanager
def following(traceparent: str) -> Iterator[None]:
    """What is done inside belongs to that trace."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def _digits(count: int) -> str:
    # Ids need to differ, not to be secret, and the kernel's random numbers cost each request a tenth of its time.
    return f"{_random.getrandbits(4 * count):0{count}x}"


def _is_legal(version: str, trace: str, span: str, _flags: str, rest: str | None) -> bool:
    # A later version may have more at its end; this one has nothing.
    return version != "ff" and (version != "00" or rest is None) and int(trace, 16) > 0 and int(span, 16) > 0
