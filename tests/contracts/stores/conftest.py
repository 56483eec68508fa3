"""A store of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.adapters.memory_store import MemoryStore
from service.adapters.sql_store import SqlStore
from service.ports import Store


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind; PostgreSQL where it is installed."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").migrated()
    else:
        url = f"sqlite:///{tmp_path}/store.db"
    with closing(SqlStore(url, sweeps_root=tmp_path / "sweeps")) as opened:
        opened.migrate()
        yield opened
