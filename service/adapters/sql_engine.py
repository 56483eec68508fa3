"""How we connect to the database, and what a transaction is there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.adapters.strict_json import decode, encode
from service.errors import Unavailable

_BUSY_SECONDS = 30.0
_PAUSE_SECONDS = 0.01
_ONLY_READS = "25006"
"""PostgreSQL's code for a write on a server that has become, or still is, another one's copy."""


def make_engine(url: URL) -> Engine:
    """An engine for the database at this URL; connects at first use.

    Raises:
        ValueError: a SQLite database in memory, which each connection would have to itself.
    """
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database in (None, "", ":memory:"):
        raise ValueError(f"a SQLite database needs a file that all processes can open, got {url}")
    engine = create_engine(
        url,
        json_serializer=encode,
        json_deserializer=decode,
        # A server may have closed a connection that the pool kept; a file does not.
        pool_pre_ping=not sqlite,
        connect_args={"timeout": _BUSY_SECONDS} if sqlite else {},
    )
    if sqlite:
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that reads. Raises Unavailable where the database does not answer."""
    with _answering(), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes, all or nothing. Raises Unavailable where the database takes none or is silent."""
    with _answering(), engine.execution_options(writes=True).begin() as connection:
        try:
            yield connection
        except InternalError as error:
            if getattr(error.orig, "sqlstate", "") != _ONLY_READS:
                raise
            connection.invalidate()  # a new one may find the server that has taken over
            raise Unavailable(f"the database takes no writes: {error.orig}") from error


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise Unavailable(f"the database does not answer: {cause}") from error
    except StatementError as error:
        if isinstance(error, DBAPIError) or error.orig is None:
            raise
        raise error.orig from None  # no database was asked: a value is not what its column holds


def _open_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by `_begin_sqlite`, not by the driver at the first INSERT.
    connection.isolation_level = None
    _use_wal(connection)
    # With WAL, NORMAL syncs at checkpoints only, which keeps the file sound.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _use_wal(connection: Any) -> None:
    # WAL lets readers go on while one writes. A new file is switched to it by whoever opens it first; those who open it
    # in the same moment are refused at once, since SQLite applies its busy timeout to transactions only.
    for _ in range(int(_BUSY_SECONDS / _PAUSE_SECONDS)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # of any kind
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    raise sqlite3.OperationalError("the database is locked and cannot be switched to WAL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail, not wait, where another wrote in between.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
