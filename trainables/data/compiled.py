"""Compilation of the generators' inner loops to machine code, by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function, compiled at its first call, without the interpreter's lock, and kept on disk for the next process.

    The machine code is kept beside the source, or in the user's cache folder where that is read-only; where neither
    can be written, every process compiles for itself.
    """
    try:
        made: F = numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # numba's answer when it finds no folder to write to
        made = numba.njit(function, nogil=True)
    return made
