"""Sweeps that keep the checkpoints of their best points only; those that are there keep all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_keep_best"
down_revision = "0007_verbs"


def upgrade() -> None:
    """Writes into each spec what it meant when it was submitted."""
    sweeps = sa.table("sweeps", sa.Column("id"), sa.Column("spec", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(sweeps.c.id, sweeps.c.spec)).all():
        if "resources" in row.spec and "keep_best" not in row.spec["resources"]:
            spec = {**row.spec, "resources": {**row.spec["resources"], "keep_best": None}}
            connection.execute(sa.update(sweeps).where(sweeps.c.id == row.id).values(spec=spec))
