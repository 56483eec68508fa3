"""Idempotency keys in the database. See `sql_store`."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from service.adapters.sql_tables import claims
from service.port_values import Claim


def claim(connection: Connection, wanted: Claim, *, expired_before: datetime) -> Claim:
    """As `ports.Store.claim`, within a transaction."""
    query = select(claims).where(claims.c.key == wanted.key)
    connection.execute(delete(claims).where(claims.c.at < expired_before))
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        try:
            with connection.begin_nested():
                row = {field.name: getattr(wanted, field.name) for field in fields(wanted)}
                connection.execute(insert(claims).values(row))
        except IntegrityError:  # somebody else's came between
            found = connection.execute(query).mappings().one()
    return wanted if found is None else Claim(**found)


def claimed(connection: Connection, key: str, *, since: datetime) -> Claim | None:
    """As `ports.Store.claimed`."""
    query = select(claims).where(claims.c.key == key, claims.c.at >= since)
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else Claim(**found)
