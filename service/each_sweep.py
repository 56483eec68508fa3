"""Doing something for every sweep, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from service.domain import Sweep
from service.errors import Unavailable
from service.trace import following


def each_sweep(sweeps: Iterable[Sweep], do: Callable[[Sweep], None]) -> None:
    """Does it for every sweep, also after it failed for one.

    Raises:
        Unavailable: at the end, if it failed for any; with each different reason once.
    """
    errors: list[Exception] = []
    for sweep in sweeps:
        try:
            with following(sweep.trace):
                do(sweep)
        except Exception as error:  # noqa: BLE001 - raised below, once the other sweeps had their turn
            errors.append(error)
    if errors:
        reasons = dict.fromkeys(
            str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}" for error in errors
        )
        raise Unavailable("; ".join(reasons)) from errors[0]
