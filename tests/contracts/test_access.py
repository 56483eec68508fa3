"""What every keeper of API keys and deeds must do: the same cases for the one in memory and the one in a database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access import MOST, Access, Deed, Scope, new_key
from service.adapters.memory_access import MemoryAccess
from service.adapters.sql_access import SqlAccess
from service.adapters.sql_store import SqlStore
from service.errors import NotFound

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
DEED = Deed(at=NOW, actor="abcd2345 (ada)", action="submit_sweep", subject="/v1/sweeps/abcd2345", trace_id="f" * 32)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def access(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Access]:
    """An empty one of each kind; PostgreSQL where it is installed."""
    if request.param == "memory":
        yield MemoryAccess()
        return
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").migrated()
    else:
        url = f"sqlite:///{tmp_path}/store.db"
    with closing(SqlStore(url)) as store:
        store.migrate()
        yield SqlAccess(store.engine)


def test_a_key_is_given_back_as_it_was(access: Access) -> None:
    """With every field, its time to the microsecond; no such key is None."""
    key, _ = new_key("ada", [Scope.SUBMIT, Scope.READ], at=NOW, rate=10, max_body_bytes=1000)
    access.add_key(key)
    assert access.key(key.id) == key
    assert access.key("absent") is None


def test_the_largest_limits_are_kept(access: Access) -> None:
    """Those that `new_key` allows fit into a database's columns."""
    key, _ = new_key("ada", [Scope.READ], at=NOW, rate=MOST, max_body_bytes=MOST)
    access.add_key(key)
    assert access.key(key.id) == key


def test_keys_are_listed_from_the_oldest_on(access: Access) -> None:
    """Whatever order they were added in."""
    younger, older = (
        new_key(name, [Scope.READ], at=NOW + timedelta(days=day))[0] for name, day in (("b", 1), ("a", 0))
    )
    access.add_key(younger)
    access.add_key(older)
    assert access.list_keys() == [older, younger]


def test_revoking_is_once_and_for_all(access: Access) -> None:
    """The first time stays; a key that is not there is NotFound."""
    key, _ = new_key("ada", [Scope.READ], at=NOW)
    access.add_key(key)
    assert access.revoke_key(key.id, at=NOW) == replace(key, revoked_at=NOW)
    access.revoke_key(key.id, at=NOW + timedelta(hours=1))
    assert access.key(key.id) == replace(key, revoked_at=NOW)
    with pytest.raises(NotFound, match="absent"):
        access.revoke_key("absent", at=NOW)


def test_deeds_are_numbered_and_paged_from_the_newest(access: Access) -> None:
    """Each page goes on where the one before ended."""
    for number in range(5):
        access.record(replace(DEED, action=f"deed {number}"))
    first = access.deeds(limit=2)
    rest = access.deeds(limit=10, before=first[-1].number)
    assert [deed.action for deed in first + rest] == [f"deed {number}" for number in (4, 3, 2, 1, 0)]
    assert first[0] == replace(DEED, action="deed 4", number=first[0].number)
    assert [deed.number for deed in first + rest] == [5, 4, 3, 2, 1]


def test_deeds_at_the_same_moment_are_all_kept(access: Access) -> None:
    """From several threads, each with a number of its own."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: access.record(DEED), range(20)))
    assert sorted(deed.number for deed in access.deeds(limit=100)) == list(range(1, 21))
