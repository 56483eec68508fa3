"""Paths relative to the folder of the sweeps, so that a home may be moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011_places"
down_revision = "0010_queue"

SWEEPS = "sweeps"
"""The name of that folder, in every home."""


def upgrade() -> None:
    """Drops from each path what is before the folder of its sweep; a path elsewhere stays as it is."""
    of = "sweep_id"
    trials = sa.table("trials", *map(sa.column, ("id", of, "checkpoint")), sa.column("exploits", sa.JSON))
    versions = sa.table("model_versions", *map(sa.column, ("name", "version", of, "path")))
    events = sa.table("events", *map(sa.column, (of, "number", "kind")), sa.column("data", sa.JSON))
    _rewrite(trials, key=("id",))
    _rewrite(versions, key=("name", "version"))
    _rewrite(events, key=("sweep_id", "number"), where=events.c.kind.in_(("trial", "exploit", "model")))


def _rewrite(table: sa.TableClause, *, key: tuple[str, ...], where: Any = None) -> None:
    connection = op.get_bind()
    query = sa.select(table) if where is None else sa.select(table).where(where)
    for row in connection.execute(query).mappings().all():
        values = {name: row[name] for name in ("checkpoint", "path", "exploits") if name in row}
        changed = _relative(values, row["sweep_id"])
        if "data" in row:
            changed["data"] = _relative(row["data"], row["sweep_id"])
        if any(changed[name] != row[name] for name in changed):
            this = [table.c[name] == row[name] for name in key]
            connection.execute(sa.update(table).where(*this).values(changed))


def _relative(values: Mapping[str, Any], sweep_id: str) -> dict[str, Any]:
    changed = dict(values)
    for name in ("checkpoint", "path"):
        if isinstance(path := values.get(name), str):
            _, there, below = path.rpartition(f"/{SWEEPS}/{sweep_id}/")
            changed[name] = f"{sweep_id}/{below}" if there else path
    if "exploits" in values:
        changed["exploits"] = [_relative(exploit, sweep_id) for exploit in values["exploits"]]
    return changed
