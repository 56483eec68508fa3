"""Sweeps that go on after an end, families to filter by, and leases."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0007_verbs"
down_revision = "0006_promotions"

NEW: tuple[tuple[str, TypeEngine[Any], str], ...] = (
    ("family", sa.String(64), ""),
    ("revision", sa.Integer(), "0"),
    ("deaths", sa.Integer(), "0"),
    ("ran", sa.Double(), "0"),
)


def upgrade() -> None:
    """Adds them; a queued sweep that has had a driver is one whose driver starts."""
    with op.batch_alter_table("sweeps") as table:
        for name, kind, default in NEW:
            table.add_column(sa.Column(name, kind, nullable=False, server_default=default))
        table.add_column(sa.Column("running_since", sa.DateTime(timezone=True)))
        table.create_index("ix_sweeps_family", ["family"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.execute("UPDATE sweeps SET state = 'starting' WHERE state = 'queued' AND attempt > 0")
    op.execute("UPDATE sweeps SET running_since = started_at WHERE state IN ('running', 'stopping')")
    sweeps = sa.table("sweeps", sa.Column("id"), sa.Column("family"), sa.Column("spec", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(sweeps.c.id, sweeps.c.spec)).all():
        family = str(row.spec.get("family", ""))[:64]
        connection.execute(sa.update(sweeps).where(sweeps.c.id == row.id).values(family=family))
