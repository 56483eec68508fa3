"""Who of several processes does what, in the database. See `sql_store`."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.adapters.sql_tables import leases
from service.port_values import Lease


def take(connection: Connection, name: str, *, holder: str, after: Lease | None) -> Lease | None:
    """As `ports.Store.take_lease`, within a transaction."""
    if after is None and _lease(connection, name) is None:
        with suppress(IntegrityError), connection.begin_nested():  # somebody may have been quicker
            connection.execute(insert(leases).values(name=name, holder=holder, beat=1))
    elif after is not None:
        same = (leases.c.name == name, leases.c.holder == after.holder, leases.c.beat == after.beat)
        connection.execute(update(leases).where(*same).values(holder=holder, beat=after.beat + 1))
    return _lease(connection, name)


def _lease(connection: Connection, name: str) -> Lease | None:
    query = select(leases.c.holder, leases.c.beat).where(leases.c.name == name)
    found = connection.execute(query).mappings().one_or_none()
    return Lease(**found) if found is not None else None
