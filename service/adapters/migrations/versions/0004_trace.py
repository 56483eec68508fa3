"""The trace of the request that submitted a sweep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_trace"
down_revision = "0003_repeats"


def upgrade() -> None:
    """Adds the column; sweeps that are there have none."""
    op.add_column("sweeps", sa.Column("trace", sa.String(64), nullable=False, server_default=""))
