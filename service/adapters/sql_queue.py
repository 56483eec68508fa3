"""The queue of the sweeps in the database: by priority, then by age. One index has all that it asks for."""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy import Connection, bindparam, func, select, tuple_

from service.adapters.sql_tables import sweeps
from service.domain import Sweep, SweepState
from service.errors import NotFound
from service.port_values import Ahead

_SWEEP = [sweeps.c[field.name] for field in fields(Sweep)]
_QUEUED = sweeps.c.state == SweepState.QUEUED
_DRIVEN = sweeps.c.state.in_([state for state in SweepState if state.driven])


def queue(connection: Connection, *, limit: int) -> list[Sweep]:
    """The next ones."""
    query = select(*_SWEEP).where(_QUEUED).order_by(sweeps.c.priority.desc(), sweeps.c.created_at, sweeps.c.id)
    return [Sweep(**row) for row in connection.execute(query.limit(limit)).mappings()]


def ahead(connection: Connection, sweep_id: str) -> Ahead:
    """How many have a driver, and how many are queued before this one."""
    this = connection.execute(select(sweeps).where(sweeps.c.id == sweep_id)).mappings().one_or_none()
    if this is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    older = tuple_(sweeps.c.created_at, sweeps.c.id) < tuple_(
        *(bindparam(name, this[name], sweeps.c[name].type) for name in ("created_at", "id"))
    )
    before = (sweeps.c.priority > this["priority"]) | ((sweeps.c.priority == this["priority"]) & older)
    count = select(func.count()).select_from(sweeps)
    return Ahead(
        driven=connection.scalar(count.where(_DRIVEN)) or 0,
        queued=(connection.scalar(count.where(_QUEUED, before)) or 0) if this["state"] is SweepState.QUEUED else 0,
    )
