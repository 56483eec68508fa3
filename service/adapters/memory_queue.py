"""The queue of the sweeps in memory: by priority, then by age. See `memory_store`, which calls under its lock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from service.domain import Sweep, SweepState
from service.port_values import Ahead


def queue(sweeps: Mapping[str, Sweep]) -> list[Sweep]:
    """Those that are queued, the next one first, of all sweeps by their ids."""
    return sorted((one for one in sweeps.values() if one.state is SweepState.QUEUED), key=_turn)


def ahead(sweeps: Mapping[str, Sweep], sweep: Sweep) -> Ahead:
    """How many have a driver, and how many are queued before this one."""
    return Ahead(
        driven=sum(one.state.driven for one in sweeps.values()),
        queued=[one.id for one in queue(sweeps)].index(sweep.id) if sweep.state is SweepState.QUEUED else 0,
    )


def _turn(sweep: Sweep) -> tuple[int, datetime, str]:
    return -sweep.priority, sweep.created_at, sweep.id
