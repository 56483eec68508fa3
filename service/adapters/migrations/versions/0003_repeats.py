"""Points that are run by several trials: which of them a trial is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_repeats"
down_revision = "0002_access"


def upgrade() -> None:
    """Trials so far were their points' only ones."""
    op.add_column("trials", sa.Column("repeat", sa.Integer, nullable=False, server_default="0"))
