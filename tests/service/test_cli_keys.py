"""`sweepserve keys`: made, listed and revoked where the database is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.access import is_valid
from service.adapters.sql_access import SqlAccess
from service.adapters.sql_store import SqlStore
from service.cli.commands import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("SWEEPSERVE_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["keys", *arguments])
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


def test_a_key_is_printed_once_and_never_kept(run: Run, tmp_path: Path) -> None:
    """What is in the database proves the text and does not hold it."""
    status, out, err = run("create", "ada", "--scope", "read", "--scope", "submit", "--rate", "60")
    assert (status, err) == (0, "")
    text = out.strip()
    store = SqlStore(f"sqlite:///{tmp_path / 'sweepserve.db'}")
    (key,) = SqlAccess(store.engine).list_keys()
    store.close()
    assert is_valid(text, key)
    assert (key.name, sorted(key.scopes), key.rate) == ("ada", ["read", "submit"], 60)
    secret = text.rpartition("_")[2].encode()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()
    _, out, _ = run("list", "--json")
    assert secret.decode() not in out


def test_keys_are_listed_and_revoked(run: Run) -> None:
    """A revoked one stays in the list with its end; deeds of the console are in the audit."""
    made: dict[str, Any] = json.loads(run("create", "ada", "--json")[1])
    assert made["scopes"] == ["predict", "read"]
    assert run("revoke", made["id"]) == (0, f"revoked {made['id']} (ada)\n", "")
    (listed,) = json.loads(run("list", "--json")[1])
    assert (listed["id"], listed["revoked_at"] is not None, "key" in listed) == (made["id"], True, False)
    _, out, _ = run("list")
    assert made["id"] in out


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [(["revoke", "absent"], "there is no key 'absent'"), (["create", " "], "a key needs a name")],
)
def test_what_cannot_be_is_one_line(run: Run, arguments: list[str], rule: str) -> None:
    """With what is wrong."""
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert rule in err
