"""Libraries, kept from Python's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def set_aside() -> Iterator[None]:
    """Around imports: no garbage is looked for meanwhile, nor ever among what they leave.

    Large libraries are hundreds of thousands of objects and no garbage. Looking through them again and again takes a
    good part of the time of their import, which is most of what a worker or a driver needs until its first step.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
