"""Brings a database's tables from any earlier version to the present one, with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, select

_LOCK = 7_737_337  # any number that nobody else locks in our database


def mismatch(connection: Connection) -> str:
    """How the database differs from this code, and what to do about it; empty: it does not."""
    has = MigrationContext.configure(connection).get_current_revision() or "none"
    script = ScriptDirectory.from_config(_config())
    needs = script.get_current_head()
    if has == needs:
        return ""
    if has == "none" or has in {revision.revision for revision in script.walk_revisions()}:
        todo = "restart `sweepserve up` or `sweepserve api`, which upgrades it"
        return f"the database is of an earlier version than this program ({has}, need {needs}): {todo}"
    todo = "install the version of the service's API here"
    return f"the database is of a later version than this program ({has}, need {needs}): {todo}"


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Upgrades within the connection's transaction, which must be a writing one; the caller commits it.

    `to` names a revision to stop at, so that tests have databases of earlier versions.

    Nobody else upgrades meanwhile: SQLite's transaction has the file locked, PostgreSQL takes a lock until it ends.

    Raises:
        ValueError: a later version of the service has been here, or the revisions are not ours.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise ValueError(f"the database is not of this version or an earlier one: {error}") from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
