"""The queue: a column to order it by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_queue"
down_revision = "0009_exploits"


def upgrade() -> None:
    """Adds it, from the specs."""
    with op.batch_alter_table("sweeps") as table:
        table.add_column(sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
        table.create_index("ix_sweeps_state_priority_created_at_id", ["state", "priority", "created_at", "id"])
    sweeps = sa.table("sweeps", sa.Column("id"), sa.Column("priority"), sa.Column("spec", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(sweeps.c.id, sweeps.c.spec)).all():
        if priority := int(row.spec.get("resources", {}).get("priority", 0)):
            connection.execute(sa.update(sweeps).where(sweeps.c.id == row.id).values(priority=priority))
