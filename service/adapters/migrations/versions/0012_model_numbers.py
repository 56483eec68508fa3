"""The newest number that a version of each model has had, so that none is given again once its sweep is deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_model_numbers"
down_revision = "0011_places"


def upgrade() -> None:
    """Makes the table, from the versions that there are."""
    op.create_table(
        "model_numbers",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_model_numbers"),
    )
    op.execute(
        sa.text("INSERT INTO model_numbers (name, version) SELECT name, MAX(version) FROM model_versions GROUP BY name")
    )
