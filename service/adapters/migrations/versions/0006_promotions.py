"""Which version of a model is its champion, and since when; so far it was the newest one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_promotions"
down_revision = "0005_claims"


def upgrade() -> None:
    """Makes the table, with one promotion for each version that there is."""
    op.create_table(
        "promotions",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", "number", name="pk_promotions"),
    )
    op.execute(
        sa.text(
            'INSERT INTO promotions (name, number, version, kind, at, "by", reason) '
            "SELECT name, version, version, 'registered', created_at, '', '' FROM model_versions"
        )
    )
