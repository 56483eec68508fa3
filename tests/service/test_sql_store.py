"""What only the store in a database has: migrations, files, processes, and a server that may not answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, make_url, text

from service.adapters.sql_store import SqlStore
from service.adapters.sql_tables import metadata
from service.domain import Sweep
from service.errors import Unavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a database may be made."""
    return f"sqlite:///{tmp_path}/home/store.db"


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    """A migrated store."""
    made = SqlStore(url)
    made.migrate()
    yield made
    made.close()


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, and the schema."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = [*inspect(connection).get_table_names(), "sqlite_master"]
        found = {name: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}"))] for name in names}  # noqa: S608
    engine.dispose()
    return found


def differences(url: str) -> list[object]:
    """What a database's tables and the ones in the code differ in."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    return found


def test_migrations_make_the_tables_of_the_code(store: SqlStore, url: str) -> None:
    """A change of the tables without a revision fails here."""
    assert differences(url) == []


def test_migrations_make_the_same_tables_in_postgresql(postgres: Any) -> None:
    """From nothing and once more; the contract's cases run there too."""
    url = postgres.database()
    with closing(SqlStore(url)) as store:
        store.migrate()
        store.migrate()
    assert differences(url) == []


def test_migrating_again_changes_nothing(store: SqlStore, url: str) -> None:
    """Neither the tables nor what is in them."""
    store.add_sweep(Sweep(id="abcdefgh", name="digits", spec={}, created_at=NOW))
    before = contents(url)
    store.migrate()
    assert contents(url) == before
    assert len(before["sweeps"]) == 1


def test_a_database_of_a_later_version_is_refused(store: SqlStore) -> None:
    """Rather than written to by a program that does not know its tables."""
    with store._write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ValueError, match=r"not of this version or an earlier one: .*9999"):
        store.migrate()


WRITER = """
import sys
from datetime import UTC, datetime
from service.adapters.sql_store import SqlStore
from service.domain import Sweep
from service.errors import Conflict
now = datetime(2026, 1, 1, tzinfo=UTC)
store = SqlStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
store.migrate()
try:
    store.add_sweep(Sweep(id="shared22", name="digits", spec={}, created_at=now))
except Conflict:
    pass
for done in range(50):
    store.add_progress("shared22", what=sys.argv[2], done=done, total=50, at=now)
"""


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_that_start_together_share_a_database(
    request: pytest.FixtureRequest, url: str, database: str
) -> None:
    """They migrate at the same moment and then write to one sweep: every event is there, numbered without gaps."""
    if database == "postgresql":
        url = request.getfixturevalue("postgres").database()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for i in range(3)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    store = SqlStore(url)
    events = store.events("shared22")
    store.close()
    assert [event.number for event in events] == list(range(1, 152))
    for i in range(3):
        assert [event.data["done"] for event in events if event.data.get("what") == str(i)] == list(range(50))


def test_readers_go_on_while_another_writes(store: SqlStore, url: str) -> None:
    """A write that takes long blocks no reader, who sees what was there before it."""
    store.add_sweep(Sweep(id="abcdefgh", name="digits", spec={}, created_at=NOW))
    writing = store._write()  # a transaction held open, which no method does
    with writing as connection:
        connection.execute(text("UPDATE sweeps SET name = 'other'"))
        assert store.sweep("abcdefgh").name == "digits"
    assert store.sweep("abcdefgh").name == "other"


def test_a_writer_waits_for_another(store: SqlStore) -> None:
    """It is served when the other is done, not refused."""
    store.add_sweep(Sweep(id="abcdefgh", name="digits", spec={}, created_at=NOW))
    second = threading.Thread(target=lambda: store.add_progress("abcdefgh", what="images", done=1, total=1, at=NOW))
    with store._write() as connection:
        connection.execute(text("UPDATE sweeps SET reason = 'held'"))
        second.start()
        second.join(0.1)
        assert second.is_alive()
    second.join(10)
    assert store.sweep("abcdefgh").last_event == 2


def test_rows_must_belong_to_something(store: SqlStore) -> None:
    """The database itself refuses orphans, so that no bug of ours can make any."""
    with pytest.raises(Exception, match="FOREIGN KEY"), store._write() as connection:
        connection.execute(text("INSERT INTO measurements VALUES ('none', 1, '2026-01-01 00:00:00', '{}')"))


def test_a_database_without_tables_is_unavailable(url: str, tmp_path: Path) -> None:
    """Its error says what is missing."""
    (tmp_path / "home").mkdir()
    store = SqlStore(url)
    with pytest.raises(Unavailable, match="no such table: sweeps"):
        store.sweeps()
    store.close()


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    """Nobody listens on port 1; the message does not hold the password."""
    store = SqlStore("postgresql+psycopg://user:secret@127.0.0.1:1/sweeps")
    with pytest.raises(Unavailable, match="the database does not answer") as caught:
        store.sweeps()
    assert "secret" not in str(caught.value)
    store.close()


def test_a_server_that_only_reads_is_unavailable_for_writes(postgres: Any) -> None:
    """Another has taken over from it, say. The next write connects anew, since that may find the other one."""
    url = postgres.migrated()
    server = create_engine(url)
    sweep = Sweep(id="a", name="a", spec={}, created_at=NOW)

    def set_reading(value: str) -> None:
        with server.begin() as connection:
            connection.execute(text("SET default_transaction_read_only = off"))
        with server.begin() as connection:
            connection.execute(
                text(f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = {value}")
            )

    with closing(SqlStore(url)) as store:
        set_reading("on")
        with pytest.raises(Unavailable, match=r"takes no writes: .*read-only"):
            store.add_sweep(sweep)
        set_reading("off")
        store.add_sweep(sweep)
        assert [one.id for one in store.sweeps()] == ["a"]
    server.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    """Other processes and threads could not open it."""
    with pytest.raises(ValueError, match="needs a file"):
        SqlStore(url)


def test_a_text_that_is_no_url_is_refused() -> None:
    """With an example of one that is."""
    with pytest.raises(ValueError, match="sqlite:////path/to/file"):
        SqlStore("/home/me/store.db")


def test_no_write_waits_for_the_disk(store: SqlStore) -> None:
    """Commits go to the write-ahead log, which is synced when it is carried over: a report takes a millisecond."""
    with store._read() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 1
