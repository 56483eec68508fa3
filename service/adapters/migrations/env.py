"""What Alembic runs for every command; see `migrations.upgrade`."""

from __future__ import annotations

from alembic import context

from service.adapters.sql_tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
