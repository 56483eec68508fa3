"""API keys and the record of deeds in the store's database."""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, insert, select, update

from service.access import Deed, Key, Scope
from service.adapters.sql_engine import reading, writing
from service.adapters.sql_tables import api_keys, deeds
from service.errors import NotFound


class SqlAccess:
    """`access.Access` in the database of an `SqlStore`, which has been migrated."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_key(self, key: Key) -> None:
        with writing(self._engine) as connection:
            connection.execute(insert(api_keys).values({**asdict(key), "scopes": sorted(key.scopes)}))

    def key(self, key_id: str) -> Key | None:
        with reading(self._engine) as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).mappings().one_or_none()
            return None if row is None else _key(row)

    def list_keys(self) -> list[Key]:
        with reading(self._engine) as connection:
            query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
            return [_key(row) for row in connection.execute(query).mappings()]

    def revoke_key(self, key_id: str, *, at: datetime) -> Key:
        valid = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
        with writing(self._engine) as connection:
            connection.execute(update(api_keys).where(valid).values(revoked_at=at))
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no key {key_id!r}")
            return _key(row)

    def record(self, deed: Deed) -> None:
        row = asdict(deed)
        del row["number"]
        with writing(self._engine) as connection:
            connection.execute(insert(deeds).values(row))

    def deeds(self, *, limit: int, before: int | None = None) -> list[Deed]:
        query = select(deeds).order_by(deeds.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(deeds.c.number < before)
        with reading(self._engine) as connection:
            return [Deed(**row) for row in connection.execute(query).mappings()]


def _key(row: Any) -> Key:
    return Key(**{**row, "scopes": frozenset(map(Scope, row["scopes"]))})
