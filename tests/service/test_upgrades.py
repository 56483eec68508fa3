"""Databases of every earlier version, as they were then, with rows in every table: the upgrade keeps each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, insert, inspect, select, text

from service.adapters import migrations
from service.adapters.manual_clock import ManualClock
from service.adapters.sql_access import SqlAccess
from service.adapters.sql_store import SqlStore
from service.adapters.sql_tables import metadata
from service.domain import Measurement, SweepState, TrialState
from service.driver.version import await_version
from tests.service.frozen_schemas import REVISIONS, load

AT = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = {"name": "digits", "family": "narrow_resnet", "resources": {"cpus": 1.0, "gpus": 0.25, "priority": 3}}
STATES = {"waiting": ("queued", 0), "starting": ("queued", 1), "running": ("running", 1), "done": ("completed", 2)}
"""Of the sweeps, and how many drivers each has had. Before 0007 one whose driver started was still queued."""


EXPLOIT = {
    "trial_id": "running-0002",
    "step": 7,
    "source": "running-0000",
    "before": {"x": 1},
    "point": {"x": 2},
    "checkpoint": "/elsewhere/checkpoint-000007",
}
EVENTS: Mapping[str, Any] = {
    "progress": {"done": 1},
    "trial": {"id": "done-0000", "checkpoint": "/there/sweeps/done/trials/done-0000/checkpoint-000007"},
    "model": {"version": 1, "path": "/there/sweeps/done/trials/done-0000/checkpoint-000007/model"},
}


def rows(table: str) -> Iterator[dict[str, Any]]:
    """What is in a table, with every column that it ever had; those of its time are taken."""
    times = {"at": AT, "created_at": AT, "started_at": AT, "finished_at": AT, "moved_at": AT, "running_since": AT}
    match table:
        case "sweeps":
            for number, (sweep_id, (state, attempt)) in enumerate(STATES.items()):
                counts = {
                    "attempt": attempt,
                    "last_event": 3,
                    "tracked": 1,
                    "revision": 0,
                    "deaths": 0,
                    "ran": 0.0,
                    "priority": 3,
                }
                begun = AT + timedelta(hours=number) if attempt else None
                texts = {"name": "digits", "state": state, "reason": "because", "trace": "00-1-2-00"}
                born = {"created_at": AT + timedelta(minutes=number), "started_at": begun, "running_since": begun}
                yield {**times, **counts, **texts, **born, "id": sweep_id, "spec": SPEC, "family": SPEC["family"]}
        case "trials":
            for sweep_id in ("running", "done"):
                for number, state in enumerate(("completed", "pruned", "running")):
                    identity = {"id": f"{sweep_id}-{number:04}", "sweep_id": sweep_id, "number": number, "repeat": 0}
                    found = {
                        "values": [0.5],
                        "value": 0.5,
                        "step": 7,
                        "checkpoint": f"/there/sweeps/{sweep_id}/trials/{sweep_id}-{number:04}/checkpoint-000007",
                        "point": {"x": [1, None]},
                    }
                    exploits = [EXPLOIT] if number == 2 else []
                    yield {**times, **identity, **found, "state": state, "reason": "", "exploits": exploits}
        case "measurements":
            for trial in rows("trials"):
                yield {"trial_id": trial["id"], "step": 7, "at": AT, "metrics": {"validation/accuracy": 0.5}}
        case "events":
            for sweep_id in STATES:
                for number, (kind, data) in enumerate(EVENTS.items(), 1):
                    yield {"sweep_id": sweep_id, "number": number, "at": AT, "kind": kind, "data": data}
        case "model_versions":
            for version in (1, 2):
                sweep_id = ("running", "done")[version - 1]
                of = {"sweep_id": sweep_id, "trial_id": f"{sweep_id}-0000"}
                yield {
                    **times,
                    **of,
                    "name": "digits",
                    "version": version,
                    "value": 0.5,
                    "path": f"/there/sweeps/{sweep_id}/model",
                }
        case "api_keys":
            key = {
                "id": "key1",
                "name": "lab",
                "digest": "d" * 64,
                "scopes": ["read"],
                "rate": 9,
                "max_body_bytes": None,
            }
            yield {**times, **key, "revoked_at": None}
        case "deeds":
            deed = {"number": 1, "actor": "key1", "action": "stop_sweep", "subject": "/v1/sweeps/done"}
            yield {**times, **deed, "trace_id": "1" * 32}
        case "claims":
            yield {"key": "k" * 64, "fingerprint": "f" * 64, "sweep_id": "waiting", "at": AT}
        case "model_numbers":  # the third version's sweep was deleted
            yield {"name": "digits", "version": 3}
        case "promotions":  # the second one was undone
            for number, (version, kind) in enumerate([(1, "registered"), (2, "registered"), (1, "rolled back")], 1):
                said = {"at": AT, "by": "", "reason": ""}
                yield {**said, "name": "digits", "number": number, "version": version, "kind": kind}
        case "leases":
            yield {"name": "background", "holder": "h" * 16, "beat": 41}
        case _:
            raise AssertionError(f"say what was in {table}")


def contents(connection: Connection) -> dict[str, list[Mapping[str, Any]]]:
    """Every row of every table, by primary key."""
    found = MetaData()
    found.reflect(connection)
    return {
        table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
        for table in found.sorted_tables
        if table.name != "alembic_version"
    }


def shape(connection: Connection) -> dict[str, str]:
    """Every table's columns, keys, constraints, indexes and options."""
    tables = inspect(connection)
    ask = {
        "columns": tables.get_multi_columns,
        "primary keys": tables.get_multi_pk_constraint,
        "foreign keys": tables.get_multi_foreign_keys,
        "unique constraints": tables.get_multi_unique_constraints,
        "checks": tables.get_multi_check_constraints,
        "indexes": tables.get_multi_indexes,
        "options": tables.get_multi_table_options,
    }
    return {what: repr(sorted(answer().items())) for what, answer in ask.items()}


@pytest.fixture(name="empty", params=["sqlite", "postgresql"])
def _empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SqlStore]]:
    """Makes databases without any tables."""
    made: list[SqlStore] = []

    def make() -> SqlStore:
        if request.param == "postgresql":
            url = request.getfixturevalue("postgres").database()
        else:
            url = f"sqlite:///{tmp_path}/{len(made)}.db"
        made.append(SqlStore(url, sweeps_root=tmp_path / "sweeps"))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture(name="old")
def _old(empty: Callable[[], SqlStore]) -> Callable[[str], SqlStore]:
    """Makes a database of a revision, as it was made when that was new, with rows."""

    def make(revision: str) -> SqlStore:
        store = empty()
        with store._write() as connection:
            load(connection, revision)
        then = MetaData()
        then.reflect(store.engine)
        with store._write() as connection:
            for table in then.sorted_tables:
                if table.name != "alembic_version":
                    for row in rows(table.name):
                        connection.execute(
                            insert(table).values({column.name: row[column.name] for column in table.columns})
                        )
        return store

    return make


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_revision_makes_the_tables_that_it_made_when_it_was_new(empty: Callable[[], SqlStore], revision: str) -> None:
    """A change of the tables is a revision of its own: databases that have passed this one do not see it again."""
    frozen, made = empty(), empty()
    with frozen._write() as connection:
        load(connection, revision)
    with made._write() as connection:
        migrations.upgrade(connection, to=revision)
    with frozen._read() as then, made._read() as now:
        assert shape(now) == shape(then)


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_upgrade_keeps_every_row_and_makes_the_tables_of_the_code(
    old: Callable[[str], SqlStore], revision: str
) -> None:
    """From each revision: what was there is there, but for what the revisions say they change."""
    store = old(revision)
    with store._read() as connection:
        before = contents(connection)
    assert all(before.values()), "every table of that time has rows"
    store.migrate()
    with store._read() as connection:
        after = contents(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert inspect(connection).get_table_names().count("_alembic_tmp_sweeps") == 0
    number = int(revision[:4])
    for table, kept in before.items():
        assert len(after[table]) == len(kept), table
        for was, now in zip(kept, after[table], strict=True):
            changed = {name for name in was if now[name] != was[name]}
            allowed = set()
            if table == "sweeps" and number < 8:
                allowed.add("spec")
                assert now["spec"] == {**SPEC, "resources": {**SPEC["resources"], "keep_best": None}}
            if table == "sweeps" and number < 7 and was["id"] == "starting":
                allowed.add("state")
                assert now["state"] == "starting"
            if number < 11:  # what was below the folder of the row's own sweep is relative now
                allowed |= changed & {"checkpoint", "path", "data"}
                if table in ("trials", "model_versions"):
                    assert changed & {"checkpoint", "path"}
                for name in allowed & {"checkpoint", "path"}:
                    assert now[name] == was[name].removeprefix("/there/sweeps/")
                if table == "events" and was["sweep_id"] == "done" and was["kind"] != "progress":
                    assert changed == {"data"}
                if "data" in changed:
                    place = "path" if was["kind"] == "model" else "checkpoint"
                    assert now["data"] == {**was["data"], place: was["data"][place].removeprefix("/there/sweeps/")}
            assert changed == allowed, (table, was)
    for sweep in after["sweeps"]:
        assert sweep["family"] == "narrow_resnet"
        assert sweep["priority"] == 3
        if number < 7:
            assert sweep["running_since"] == (sweep["started_at"] if sweep["state"] == "running" else None)
            assert (sweep["revision"], sweep["deaths"], sweep["ran"]) == (0, 0, 0)
    if number < 12:
        assert after["model_numbers"] == [{"name": "digits", "version": 2}]
    if number < 6:
        assert [(row["version"], row["kind"]) for row in after["promotions"]] == [(1, "registered"), (2, "registered")]


class Upgrading(ManualClock):
    """Time in which somebody upgrades the database, at the third second."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__()
        self.store, self.slept, self.said = store, 0, set[str]()

    def sleep(self, seconds: float) -> None:
        """Time goes by."""
        super().sleep(seconds)
        self.slept += 1
        with self.store._read() as connection:
            self.said.add(connection.scalar(text("SELECT reason FROM sweeps WHERE id = 'running'")))
        if self.slept == 3:
            self.store.migrate()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_driver_waits_for_the_upgrade_and_its_sweep_says_so(old: Callable[[str], SqlStore], revision: str) -> None:
    """It names both versions and the command; then it goes on, and nothing of it stays."""
    store = old(revision)
    clock = Upgrading(store)
    await_version("running", store=store, clock=clock)
    todo = "restart `sweepserve up` or `sweepserve api`, which upgrades it"
    why = f"the database is of an earlier version than this program ({revision}, need {REVISIONS[-1]}): {todo}"
    assert clock.said == {why}
    assert clock.slept == 3
    assert store.sweep("running").reason == ""
    assert [event.data for event in store.events("running")[-2:]] == [{"reason": why}, {"reason": ""}]


def test_a_driver_older_than_the_database_waits_too(old: Callable[[str], SqlStore]) -> None:
    """A node of the cluster that was forgotten."""
    store = old(REVISIONS[-1])
    assert store.mismatch() == ""
    with store._write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    assert store.mismatch() == (
        f"the database is of a later version than this program (9999_later, need {REVISIONS[-1]}): "
        "install the version of the service's API here"
    )


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_service_goes_on_with_an_upgraded_database(
    old: Callable[[str], SqlStore], revision: str, tmp_path: Path
) -> None:
    """It reads all of it, and its sweeps, trials and models go on."""
    store = old(revision)
    store.migrate()
    number = int(revision[:4])
    assert [sweep.id for sweep in store.sweeps()] == list(STATES)[::-1]
    assert [sweep.id for sweep in store.sweeps(family="narrow_resnet", states=[SweepState.RUNNING])] == ["running"]
    assert [sweep.id for sweep in store.queue(limit=9)] == ["waiting", "starting"][: 1 if number < 7 else 2]
    assert len(store.untracked()) == 4
    trials = store.trials("running")
    assert [trial.state for trial in trials] == [TrialState.COMPLETED, TrialState.PRUNED, TrialState.RUNNING]
    assert [one.step for one in store.measurements("running")] == [7, 7, 7]
    assert store.champion("digits").version == (2 if number < 6 else 1)
    if number < 11:
        assert trials[0].checkpoint == f"{tmp_path}/sweeps/running/trials/running-0000/checkpoint-000007"
        assert store.model_versions("digits")[-1].path == f"{tmp_path}/sweeps/running/model"
        assert store.events("done")[1].data["checkpoint"] == store.trial("done-0000").checkpoint
    assert store.census().gpus == pytest.approx(0.5)
    assert (SqlAccess(store.engine).key("key1") is None) == (number < 2)
    assert store.add_measurement(Measurement(trial_id="running-0002", step=8, at=AT, metrics={}), checkpoint="/new")
    store.move_trial("running-0002", TrialState.COMPLETED, at=AT, values=(0.9,))
    version = store.add_model_version(
        name="digits", sweep_id="running", trial_id="running-0002", value=0.9, path="/new/model", at=AT
    )
    assert version.version == store.champion("digits").version == (3 if number < 12 else 4)
    assert store.count_attempt("starting", after=1) == 2
    moved = store.move_sweep("running", SweepState.COMPLETED, at=AT + timedelta(hours=3))
    assert moved.ran == 3600
    assert store.events("running")[-1].number == moved.last_event == 7
    store.delete_sweep("running")
    assert [one.version for one in store.model_versions("digits")] == [2]
