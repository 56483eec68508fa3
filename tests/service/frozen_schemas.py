"""The tables as each revision made them when it was new: `schemas/`, files that are written once and never changed.

Users' databases are such ones, whatever becomes of the revisions' scripts. After a new revision, this writes its files:

    .venv/bin/python -m tests.service.frozen_schemas
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy import Connection, text

from service.adapters import migrations
from service.adapters.sql_store import SqlStore
from tests.conftest import Postgres, postgres_programs

SCHEMAS = Path(__file__).parent / "schemas"
REVISIONS = [path.stem for path in sorted((Path(migrations.__file__).parent / "versions").glob("0*.py"))]
REVISIONS[0] = "0001"


def load(connection: Connection, revision: str) -> None:
    """Makes an empty database one of that revision, without a look at its script."""
    for statement in _file(connection.dialect.name, revision).read_text().split(";\n"):
        if statement:
            connection.exec_driver_sql(statement)


def _file(dialect: str, revision: str) -> Path:
    return SCHEMAS / dialect / f"{revision}.sql"


def _freeze(programs: Path) -> None:
    """Writes the files that are not there."""
    with ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory())
        server = Postgres(programs)
        ends.callback(server.clear)
        for revision in REVISIONS:
            for dialect, url in (("sqlite", f"sqlite:///{folder}/{revision}.db"), ("postgresql", server.database())):
                path = _file(dialect, revision)
                if not path.exists():
                    with closing(SqlStore(url)) as store, store._write() as connection:
                        migrations.upgrade(connection, to=revision)
                    tables = _sqlite(url) if dialect == "sqlite" else _postgresql(programs, url)
                    path.write_text(f"{tables}INSERT INTO alembic_version VALUES ('{revision}');\n")  # noqa: S608


def _sqlite(url: str) -> str:
    with closing(SqlStore(url)) as store, store._read() as connection:
        made = connection.scalars(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")).all()
    return re.sub(r"\s+\n", "\n", "".join(f"{statement};\n" for statement in made))


def _postgresql(programs: Path, url: str) -> str:
    options = ["--schema-only", "--no-owner", "--no-privileges", "--dbname", url.replace("+psycopg", "")]
    said = subprocess.run([programs / "pg_dump", *options], capture_output=True, text=True, check=True).stdout
    return re.sub(r"^(--.*|SET .*|SELECT pg_catalog.*|\\.*|)\n", "", said, flags=re.MULTILINE)


if __name__ == "__main__":
    found = postgres_programs()
    assert found is not None, "PostgreSQL is not installed"
    _freeze(found)
