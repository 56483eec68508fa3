"""The store in a database: SQLite by default, PostgreSQL by URL.

Two rules keep writers from several threads, processes and machines apart. Every writing transaction first locks the
row of the sweep that it changes (SQLite: the whole file, by BEGIN IMMEDIATE), and reads only then. And the number of an
event is taken from that row, so numbers have no gaps and appear in order.
"""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, bindparam, delete, insert, make_url, select, update
from sqlalchemy.exc import ArgumentError, IntegrityError

from service.adapters import (
    migrations,
    sql_checkpoints,
    sql_claims,
    sql_events,
    sql_leases,
    sql_measurements,
    sql_promotions,
    sql_queue,
    sql_reading,
)
from service.adapters.sql_census import census
from service.adapters.sql_engine import make_engine, reading, writing
from service.adapters.sql_places import set_root
from service.adapters.sql_tables import claims, events, measurements, model_versions, sweeps, trials
from service.domain import (
    Event,
    Exploit,
    Measurement,
    ModelVersion,
    Promotion,
    Sweep,
    SweepState,
    Trial,
    TrialState,
    as_data,
)
from service.errors import Conflict, NotFound
from service.port_values import Ahead, Census, Claim, Lease


class SqlStore:
    """`ports.Store` in the database at a SQLAlchemy URL. `migrate` it once before use; `close` it after.

    A commit survives the death of any process; with SQLite, the newest commits may be lost when the machine itself
    loses power (synchronous=NORMAL).

    Args:
        url: of the database.
        sweeps_root: the folder of the sweeps: paths below it are kept relative to it, so that it may be moved.

    Raises:
        ValueError: the URL is no URL, or names a SQLite database in memory, which each thread would have of its own.
    """

    def __init__(self, url: str, *, sweeps_root: Path | None = None) -> None:
        try:
            self._engine = make_engine(make_url(url))
            set_root(self._engine, sweeps_root)
        except ArgumentError as error:
            raise ValueError("a database needs a URL such as sqlite:////path/to/file.db") from error

    def migrate(self) -> None:
        """Brings the database's tables to this version's. Again, or in two processes at once, changes nothing.

        Raises:
            ValueError: the database is of a later version.
        """
        if self._engine.url.get_backend_name() == "sqlite":
            assert self._engine.url.database
            Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        with self._write() as connection:
            migrations.upgrade(connection)

    def mismatch(self) -> str:
        """How the database's version differs from this code's, and what to do about it; empty: it does not."""
        with self._read() as connection:
            return migrations.mismatch(connection)

    @property
    def engine(self) -> Engine:
        """The database, for what else is kept there."""
        return self._engine

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def add_sweep(self, sweep: Sweep) -> None:
        with self._write() as connection:
            sql_checkpoints.check_starts(connection, sweep)
            try:
                family = str(sweep.spec.get("family", ""))
                connection.execute(insert(sweeps).values(**_row(sweep), family=family, priority=sweep.priority))
            except IntegrityError as error:
                raise Conflict(f"sweep {sweep.id} exists already") from error
            sql_events.append(
                connection, sweep.id, "sweep", {"state": sweep.state.value, "reason": sweep.reason}, sweep.created_at
            )

    def claim(self, claim: Claim, *, expired_before: datetime) -> Claim:
        with self._write() as connection:
            return sql_claims.claim(connection, claim, expired_before=expired_before)

    def claimed(self, key: str, *, since: datetime) -> Claim | None:
        with self._read() as connection:
            return sql_claims.claimed(connection, key, since=since)

    def sweep(self, sweep_id: str) -> Sweep:
        with self._read() as connection:
            return sql_reading.sweep(connection, sweep_id)

    def sweeps(
        self,
        *,
        states: Sequence[SweepState] = (),
        name: str | None = None,
        family: str | None = None,
        limit: int | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> list[Sweep]:
        with self._read() as connection:
            return sql_reading.list_sweeps(
                connection, states=states, name=name, family=family, limit=limit, before=before
            )

    def queue(self, *, limit: int) -> list[Sweep]:
        with self._read() as connection:
            return sql_queue.queue(connection, limit=limit)

    def ahead(self, sweep_id: str) -> Ahead:
        with self._read() as connection:
            return sql_queue.ahead(connection, sweep_id)

    def move_sweep(
        self,
        sweep_id: str,
        state: SweepState,
        *,
        at: datetime,
        reason: str = "",
        seen: Sweep | None = None,
        after: SweepState | None = None,
        trial_moves: Mapping[TrialState, TrialState] | None = None,
    ) -> Sweep:
        with self._write() as connection:
            sweep = sql_reading.sweep(connection, sweep_id, lock=True)
            if seen is not None and (seen.attempt, seen.revision) != (sweep.attempt, sweep.revision):
                raise Conflict(f"sweep {sweep_id} has another driver or spec by now")
            if after not in (None, sweep.state):
                raise Conflict(f"sweep {sweep_id} is {sweep.state} by now, not {after}")
            if state is SweepState.DELETING:
                sql_checkpoints.check_unneeded(connection, sweep_id)
            moved = sweep.to(state, at=at, reason=reason)
            if trial_moves:
                found = sql_reading.list_trials(connection, sweep_id, list(trial_moves))
                _move(connection, [one.to(trial_moves[one.state], at=at, reason=reason) for one in found], at)
            changes = {name: new for name, new in _row(moved).items() if new != getattr(sweep, name)}
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(changes))
            sql_events.append(connection, sweep_id, "sweep", {"state": moved.state.value, "reason": moved.reason}, at)
            return sql_reading.sweep(connection, sweep_id)

    def change_spec(self, sweep_id: str, spec: Mapping[str, Any], *, seen: Sweep, at: datetime) -> Sweep:
        with self._write() as connection:
            sweep = sql_reading.sweep(connection, sweep_id, lock=True)
            if (sweep.revision, sweep.state) != (seen.revision, seen.state) or sweep.state is SweepState.DELETING:
                raise Conflict(f"sweep {sweep_id} has been changed meanwhile")
            changed = replace(sweep, spec=spec, revision=sweep.revision + 1)
            changes = {"spec": spec, "revision": changed.revision, "priority": changed.priority}
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(changes))
            data = {"state": sweep.state.value, "reason": sweep.reason, "spec": spec}
            sql_events.append(connection, sweep_id, "sweep", data, at)
            return sql_reading.sweep(connection, sweep_id)

    def delete_sweep(self, sweep_id: str) -> None:
        with self._write() as connection:
            sql_promotions.lock(connection, sql_reading.sweep(connection, sweep_id).name)
            of_sweep = select(trials.c.id).where(trials.c.sweep_id == sweep_id)
            connection.execute(delete(measurements).where(measurements.c.trial_id.in_(of_sweep)))
            names = connection.scalars(
                select(model_versions.c.name).where(model_versions.c.sweep_id == sweep_id).distinct()
            ).all()
            for table in (model_versions, events, trials, claims):
                connection.execute(delete(table).where(table.c.sweep_id == sweep_id))
            for name in names:
                sql_promotions.keep_only(connection, name, sql_reading.versions(connection, name))
            connection.execute(delete(sweeps).where(sweeps.c.id == sweep_id))

    def count_attempt(self, sweep_id: str, *, after: int | None = None, died: bool = False) -> int:
        with self._write() as connection:
            sweep = sql_reading.sweep(connection, sweep_id, lock=True)
            if after not in (None, sweep.attempt):
                raise Conflict(f"sweep {sweep_id} has had {sweep.attempt} attempts, not {after}")
            changes = {"attempt": sweep.attempt + 1, "deaths": sweep.deaths + died}
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(changes))
            return sweep.attempt + 1

    def add_trial(self, trial: Trial) -> None:
        with self._write() as connection:
            sql_reading.sweep(connection, trial.sweep_id, lock=True)
            if connection.scalar(select(trials.c.id).where(trials.c.id == trial.id)) is not None:
                return
            try:
                connection.execute(insert(trials).values(_trial_row(trial)))
            except IntegrityError as error:
                raise Conflict(f"sweep {trial.sweep_id} has another trial number {trial.number}") from error
            sql_events.append(connection, trial.sweep_id, "trial", as_data(trial), trial.created_at)

    def trial(self, trial_id: str) -> Trial:
        with self._read() as connection:
            return sql_reading.trial(connection, trial_id)

    def trials(
        self,
        sweep_id: str,
        *,
        states: Sequence[TrialState] = (),
        numbers: Sequence[int] | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> list[Trial]:
        with self._read() as connection:
            return sql_reading.list_trials(connection, sweep_id, states, numbers, limit=limit, after=after)

    def count_trials(self, sweep_id: str) -> dict[TrialState, int]:
        with self._read() as connection:
            return sql_reading.count_trials(connection, sweep_id)

    def completed(self, sweep_id: str) -> list[int]:
        with self._read() as connection:
            return sql_reading.completed(connection, sweep_id)

    def best_trials(
        self,
        sweep_id: str,
        *,
        mode: Literal["min", "max"],
        limit: int | None = None,
        after: tuple[float, int] | None = None,
    ) -> list[Trial]:
        with self._read() as connection:
            return sql_reading.best_trials(connection, sweep_id, mode=mode, limit=limit, after=after)

    def add_measurement(self, measurement: Measurement, *, checkpoint: str | None = None) -> bool:
        with self._write() as connection:
            return sql_measurements.add(connection, measurement, checkpoint=checkpoint)

    def forget_checkpoint(self, trial_id: str) -> bool:
        with self._write() as connection:
            return sql_checkpoints.forget(connection, trial_id)

    def move_trial(
        self,
        trial_id: str,
        state: TrialState,
        *,
        at: datetime,
        reason: str = "",
        values: tuple[float, ...] | None = None,
    ) -> Trial:
        with self._write() as connection:
            sql_reading.lock_sweep_of(connection, trial_id)
            trial = sql_reading.trial(connection, trial_id)
            if trial.has_moved(state, at=at, reason=reason):
                return trial
            moved = trial.to(state, at=at, reason=reason, values=values)
            _move(connection, [moved], at)
            return moved

    def add_exploits(self, sweep_id: str, exploits: Sequence[Exploit], *, at: datetime) -> None:
        with self._write() as connection:
            sql_reading.sweep(connection, sweep_id, lock=True)
            for exploit in exploits:
                trial = sql_reading.trial(connection, exploit.trial_id)
                if trial.sweep_id != sweep_id:
                    raise NotFound(f"there is no trial {trial.id!r} in sweep {sweep_id}")
                if any(one.step == exploit.step for one in trial.exploits):
                    continue
                row = _trial_row(trial.exploited(exploit))
                connection.execute(update(trials).where(trials.c.id == trial.id).values(row))
                sql_events.append(connection, sweep_id, "exploit", as_data(exploit), at)

    def measurements(
        self,
        sweep_id: str,
        *,
        trial_id: str | None = None,
        limit: int | None = None,
        after: tuple[str, int] | None = None,
    ) -> list[Measurement]:
        with self._read() as connection:
            return sql_reading.list_measurements(connection, sweep_id, trial_id=trial_id, limit=limit, after=after)

    def curves(self, sweep_id: str, trial_ids: Sequence[str], *, points: int | None = None) -> list[Measurement]:
        with self._read() as connection:
            return sql_reading.curves(connection, sweep_id, trial_ids, points=points)

    def add_model_version(
        self,
        *,
        name: str,
        sweep_id: str,
        trial_id: str,
        value: float,
        path: str,
        at: datetime,
        after: int | None = None,
    ) -> ModelVersion:
        with self._write() as connection:
            return sql_promotions.register(
                connection,
                name=name,
                sweep_id=sweep_id,
                trial_id=trial_id,
                value=value,
                path=path,
                at=at,
                after=after,
            )

    def model_versions(self, name: str, *, limit: int | None = None, before: int | None = None) -> list[ModelVersion]:
        with self._read() as connection:
            return sql_reading.versions(connection, name, limit=limit, before=before)

    def champion(self, name: str) -> ModelVersion:
        with self._read() as connection:
            return sql_promotions.champion(connection, name)

    def promote(self, name: str, version: int, *, at: datetime, by: str = "", reason: str = "") -> Promotion:
        with self._write() as connection:
            return sql_promotions.promote(connection, name, version, at=at, by=by, reason=reason)

    def roll_back(self, name: str, *, at: datetime, by: str = "", reason: str = "") -> Promotion:
        with self._write() as connection:
            return sql_promotions.roll_back(connection, name, at=at, by=by, reason=reason)

    def promotions(self, name: str, *, limit: int | None = None, before: int | None = None) -> list[Promotion]:
        with self._read() as connection:
            return sql_promotions.of(connection, name, limit=limit, before=before)

    def models(
        self, *, family: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[ModelVersion]:
        with self._read() as connection:
            return sql_reading.champions(connection, family=family, limit=limit, after=after)

    def add_progress(self, sweep_id: str, *, what: str, done: int, total: int, at: datetime) -> None:
        with self._write() as connection:
            sql_events.append(connection, sweep_id, "progress", {"what": what, "done": done, "total": total}, at)

    def add_wait(self, sweep_id: str, *, reason: str, at: datetime) -> None:
        with self._write() as connection:  # by what the tables had in every version: see `driver.version`
            goes_on = sweeps.c.state.not_in([state for state in SweepState if state.final])
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id, goes_on).values(reason=reason))
            sql_events.append(connection, sweep_id, "wait", {"reason": reason}, at)

    def take_lease(self, name: str, *, holder: str, after: Lease | None) -> Lease | None:
        with self._write() as connection:
            return sql_leases.take(connection, name, holder=holder, after=after)

    def events(self, sweep_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        with self._read() as connection:
            return sql_events.read(connection, sweep_id, after=after, limit=limit)

    def untracked(self) -> list[Sweep]:
        with self._read() as connection:
            return sql_reading.untracked(connection)

    def set_tracked(self, sweep_id: str, number: int) -> None:
        with self._write() as connection:
            sql_events.set_tracked(connection, sweep_id, number)

    def census(self) -> Census:
        with self._read() as connection:
            return census(connection)

    def _read(self) -> AbstractContextManager[Connection]:
        return reading(self._engine)

    def _write(self) -> AbstractContextManager[Connection]:
        return writing(self._engine)


def _move(connection: Connection, moved: Sequence[Trial], at: datetime) -> None:
    """Keeps trials of one sweep as they are now."""
    if moved:
        query = update(trials).where(trials.c.id == bindparam("moved"))
        connection.execute(query, [{"moved": one.id, **_trial_row(one)} for one in moved])
        sql_events.append_all(connection, moved[0].sweep_id, "trial", [as_data(one) for one in moved], at)


def _row(sweep: Sweep) -> dict[str, Any]:
    return {field.name: getattr(sweep, field.name) for field in fields(sweep)}


def _trial_row(trial: Trial) -> dict[str, Any]:
    row = {field.name: getattr(trial, field.name) for field in fields(trial)}
    return {**row, "value": trial.values[0] if trial.values and trial.state is TrialState.COMPLETED else None}
