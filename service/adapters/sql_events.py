"""What happened in a sweep, in the database. See `sql_store`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, insert, select, update

from service.adapters import sql_reading
from service.adapters.sql_tables import events, sweeps
from service.domain import Event, EventKind
from service.errors import NotFound


def append(connection: Connection, sweep_id: str, kind: EventKind, data: Mapping[str, Any], at: datetime) -> None:
    """Keeps one more event, under the sweep's next number. Raises NotFound where there is no such sweep."""
    append_all(connection, sweep_id, kind, [data], at)


def append_all(
    connection: Connection, sweep_id: str, kind: EventKind, data: Sequence[Mapping[str, Any]], at: datetime
) -> None:
    """Keeps so many more, at least one. Raises as `append`."""
    last = connection.scalar(
        update(sweeps)
        .where(sweeps.c.id == sweep_id)
        .values(last_event=sweeps.c.last_event + len(data))
        .returning(sweeps.c.last_event)
    )
    if last is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    same = {"sweep_id": sweep_id, "at": at, "kind": kind}
    numbered = [{**same, "number": number, "data": one} for number, one in enumerate(data, last - len(data) + 1)]
    connection.execute(insert(events), numbered)


def read(connection: Connection, sweep_id: str, *, after: int, limit: int) -> list[Event]:
    """Those of a sweep with larger numbers, in order. Raises NotFound where there is no such sweep."""
    query = (
        select(events)
        .where(events.c.sweep_id == sweep_id, events.c.number > after)
        .order_by(events.c.number)
        .limit(limit)
    )
    return [Event(**row) for row in sql_reading.rows(connection, query, sweep_id)]


def set_tracked(connection: Connection, sweep_id: str, number: int) -> None:
    """As `ports.Store.set_tracked`, within a transaction."""
    larger = case((sweeps.c.tracked < number, number), else_=sweeps.c.tracked)  # databases name their maximum unlike
    changed = connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(tracked=larger))
    if changed.rowcount == 0:
        raise NotFound(f"there is no sweep {sweep_id!r}")
