"""The store in a database: SQLite by default, PostgreSQL by URL.

Two rules keep writers from several threads, processes and machines apart. Every writing transaction first locks the
row of the sweep that it changes (SQLite: the whole file, by BEGIN IMMEDIATE), and reads only then. And the number of an
event is taken from that row, so numbers have no gaps and appear in order.
"""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    case,
    func,
    insert,
    literal,
    make_url,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import ArgumentError, IntegrityError

from service.adapters import migrations
from service.adapters.sql_engine import make_engine, reading, writing
from service.adapters.sql_tables import events, measurements, model_versions, sweeps, trials
from service.domain import (
    Conflict,
    Event,
    EventKind,
    Measurement,
    ModelVersion,
    NotFound,
    Sweep,
    SweepState,
    Trial,
    TrialState,
    as_data,
)

_TRIAL = [trials.c[field.name] for field in fields(Trial)]


class SqlStore:
    """`ports.Store` in the database at a SQLAlchemy URL. `migrate` it once before use; `close` it after.

    A commit survives the death of any process; with SQLite, the newest commits may be lost when the machine itself
    loses power (synchronous=NORMAL).

    Raises:
        ValueError: the URL is no URL, or names a SQLite database in memory, which each thread would have of its own.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = make_engine(make_url(url))
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

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def add_sweep(self, sweep: Sweep) -> None:
        with self._write() as connection:
            try:
                connection.execute(
                    insert(sweeps).values({field.name: getattr(sweep, field.name) for field in fields(sweep)})
                )
            except IntegrityError as error:
                raise Conflict(f"sweep {sweep.id} exists already") from error
            _append(
                connection, sweep.id, "sweep", {"state": sweep.state.value, "reason": sweep.reason}, sweep.created_at
            )

    def sweep(self, sweep_id: str) -> Sweep:
        with self._read() as connection:
            return _sweep(connection, sweep_id)

    def sweeps(
        self,
        *,
        states: Sequence[SweepState] = (),
        name: str | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[Sweep]:
        query = select(sweeps).order_by(sweeps.c.created_at.desc(), sweeps.c.id.desc()).limit(limit)
        if states:
            query = query.where(sweeps.c.state.in_(states))
        if name is not None:
            query = query.where(sweeps.c.name == name)
        with self._read() as connection:
            if before is not None:
                last = _sweep(connection, before)
                page = tuple_(literal(last.created_at, sweeps.c.created_at.type), last.id)
                query = query.where(tuple_(sweeps.c.created_at, sweeps.c.id) < page)
            return [Sweep(**row) for row in connection.execute(query).mappings()]

    def move_sweep(self, sweep_id: str, state: SweepState, *, at: datetime, reason: str = "") -> Sweep:
        with self._write() as connection:
            moved = _sweep(connection, sweep_id, lock=True).to(state, at=at, reason=reason)
            changed = ("state", "reason", "started_at", "finished_at", "moved_at")
            connection.execute(
                update(sweeps).where(sweeps.c.id == sweep_id).values({name: getattr(moved, name) for name in changed})
            )
            _append(connection, sweep_id, "sweep", {"state": moved.state.value, "reason": moved.reason}, at)
            return _sweep(connection, sweep_id)

    def count_attempt(self, sweep_id: str, *, after: int | None = None) -> int:
        with self._write() as connection:
            attempt = _sweep(connection, sweep_id, lock=True).attempt
            if after not in (None, attempt):
                raise Conflict(f"sweep {sweep_id} has had {attempt} attempts, not {after}")
            connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(attempt=attempt + 1))
            return attempt + 1

    def add_trial(self, trial: Trial) -> None:
        with self._write() as connection:
            _sweep(connection, trial.sweep_id, lock=True)
            if connection.scalar(select(trials.c.id).where(trials.c.id == trial.id)) is not None:
                return
            try:
                connection.execute(insert(trials).values(_trial_row(trial)))
            except IntegrityError as error:
                raise Conflict(f"sweep {trial.sweep_id} has another trial number {trial.number}") from error
            _append(connection, trial.sweep_id, "trial", as_data(trial), trial.created_at)

    def trial(self, trial_id: str) -> Trial:
        with self._read() as connection:
            return _trial(connection, trial_id)

    def trials(self, sweep_id: str, *, states: Sequence[TrialState] = ()) -> list[Trial]:
        query = select(*_TRIAL).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number)
        if states:
            query = query.where(trials.c.state.in_(states))
        with self._read() as connection:
            return [Trial(**row) for row in _rows(connection, query, sweep_id)]

    def count_trials(self, sweep_id: str) -> dict[TrialState, int]:
        query = select(trials.c.state, func.count()).where(trials.c.sweep_id == sweep_id).group_by(trials.c.state)
        with self._read() as connection:
            return {row["state"]: row["count"] for row in _rows(connection, query, sweep_id)}

    def best_trials(self, sweep_id: str, *, mode: Literal["min", "max"], limit: int | None = None) -> list[Trial]:
        order = trials.c["value"].desc() if mode == "max" else trials.c["value"].asc()
        query = (
            select(*_TRIAL)
            .where(trials.c.sweep_id == sweep_id, trials.c.state == TrialState.COMPLETED)
            .order_by(order, trials.c.number)
            .limit(limit)
        )
        with self._read() as connection:
            return [Trial(**row) for row in _rows(connection, query, sweep_id)]

    def add_measurement(self, measurement: Measurement, *, checkpoint: str | None = None) -> bool:
        with self._write() as connection:
            sweep_id = _lock_sweep_of(connection, measurement.trial_id)
            repeated = connection.scalar(
                select(measurements.c.step).where(
                    measurements.c.trial_id == measurement.trial_id, measurements.c.step == measurement.step
                )
            )
            changes: dict[str, Any] = {} if checkpoint is None else {"checkpoint": checkpoint}
            if repeated is None:
                changes["step"] = _larger(trials.c.step, measurement.step)
            if changes:
                connection.execute(update(trials).where(trials.c.id == measurement.trial_id).values(changes))
            if repeated is not None:
                return False
            row = {field.name: getattr(measurement, field.name) for field in fields(measurement)}
            connection.execute(insert(measurements).values(row))
            data = {"trial_id": measurement.trial_id, "step": measurement.step, "metrics": measurement.metrics}
            _append(connection, sweep_id, "measurement", data, measurement.at)
            return True

    def finish_trial(
        self,
        trial_id: str,
        state: TrialState,
        *,
        at: datetime,
        reason: str = "",
        values: tuple[float, ...] | None = None,
    ) -> Trial:
        with self._write() as connection:
            _lock_sweep_of(connection, trial_id)
            ended = _trial(connection, trial_id).to(state, at=at, reason=reason, values=values)
            connection.execute(update(trials).where(trials.c.id == trial_id).values(_trial_row(ended)))
            _append(connection, ended.sweep_id, "trial", as_data(ended), at)
            return ended

    def measurements(self, sweep_id: str, *, trial_id: str | None = None) -> list[Measurement]:
        query = (
            select(measurements)
            .join(trials)
            .where(trials.c.sweep_id == sweep_id)
            .order_by(trials.c.number, measurements.c.step)
        )
        if trial_id is not None:
            query = query.where(trials.c.id == trial_id)
        with self._read() as connection:
            found = [Measurement(**row) for row in _rows(connection, query, sweep_id)]
            if not found and trial_id is not None:
                _trial(connection, trial_id)
            return found

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
            # Sweeps of one name offer versions at once; the lock on the oldest of them is the one they all wait for.
            connection.execute(select(sweeps.c.id).where(sweeps.c.name == name).order_by(sweeps.c.id).with_for_update())
            _sweep(connection, sweep_id, lock=True)
            _trial(connection, trial_id)
            known = _versions(connection, name)
            for version in known:
                if version.trial_id == trial_id:
                    return version
            newest = known[0].version if known else 0
            if after not in (None, newest):
                raise Conflict(f"model {name} is at version {newest}, not {after}")
            added = ModelVersion(
                name=name,
                version=newest + 1,
                sweep_id=sweep_id,
                trial_id=trial_id,
                value=value,
                path=path,
                created_at=at,
            )
            row = {field.name: getattr(added, field.name) for field in fields(added)}
            connection.execute(insert(model_versions).values(row))
            _append(connection, sweep_id, "model", as_data(added), at)
            return added

    def model_versions(self, name: str) -> list[ModelVersion]:
        with self._read() as connection:
            return _versions(connection, name)

    def models(self) -> list[ModelVersion]:
        newest = select(model_versions.c.name, func.max(model_versions.c.version)).group_by(model_versions.c.name)
        champion = tuple_(model_versions.c.name, model_versions.c.version).in_(newest)
        with self._read() as connection:
            champions = [
                ModelVersion(**row) for row in connection.execute(select(model_versions).where(champion)).mappings()
            ]
        return sorted(champions, key=lambda version: version.name)  # databases differ in how they order texts

    def add_progress(self, sweep_id: str, *, what: str, done: int, total: int, at: datetime) -> None:
        with self._write() as connection:
            _append(connection, sweep_id, "progress", {"what": what, "done": done, "total": total}, at)

    def events(self, sweep_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        query = (
            select(events)
            .where(events.c.sweep_id == sweep_id, events.c.number > after)
            .order_by(events.c.number)
            .limit(limit)
        )
        with self._read() as connection:
            return [Event(**row) for row in _rows(connection, query, sweep_id)]

    def untracked(self) -> list[Sweep]:
        query = select(sweeps).where(sweeps.c.tracked < sweeps.c.last_event).order_by(sweeps.c.created_at, sweeps.c.id)
        with self._read() as connection:
            return [Sweep(**row) for row in connection.execute(query).mappings()]

    def set_tracked(self, sweep_id: str, number: int) -> None:
        with self._write() as connection:
            tracked = _larger(sweeps.c.tracked, number)
            changed = connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(tracked=tracked))
            if changed.rowcount == 0:
                raise NotFound(f"there is no sweep {sweep_id!r}")

    def _read(self) -> AbstractContextManager[Connection]:
        return reading(self._engine)

    def _write(self) -> AbstractContextManager[Connection]:
        return writing(self._engine)


def _append(connection: Connection, sweep_id: str, kind: EventKind, data: Mapping[str, Any], at: datetime) -> None:
    number = connection.scalar(
        update(sweeps)
        .where(sweeps.c.id == sweep_id)
        .values(last_event=sweeps.c.last_event + 1)
        .returning(sweeps.c.last_event)
    )
    if number is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    connection.execute(insert(events).values(sweep_id=sweep_id, number=number, at=at, kind=kind, data=data))


def _sweep(connection: Connection, sweep_id: str, *, lock: bool = False) -> Sweep:
    query = select(sweeps).where(sweeps.c.id == sweep_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return Sweep(**row)


def _lock_sweep_of(connection: Connection, trial_id: str) -> str:
    of_trial = select(trials.c.sweep_id).where(trials.c.id == trial_id).scalar_subquery()
    sweep_id = connection.scalar(select(sweeps.c.id).where(sweeps.c.id == of_trial).with_for_update())
    if sweep_id is None:
        raise NotFound(f"there is no trial {trial_id!r}")
    return str(sweep_id)


def _trial(connection: Connection, trial_id: str) -> Trial:
    row = connection.execute(select(*_TRIAL).where(trials.c.id == trial_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no trial {trial_id!r}")
    return Trial(**row)


def _trial_row(trial: Trial) -> dict[str, Any]:
    row = {field.name: getattr(trial, field.name) for field in fields(trial)}
    return {**row, "value": trial.values[0] if trial.values and trial.state is TrialState.COMPLETED else None}


def _rows(connection: Connection, query: Select[Any], sweep_id: str) -> Sequence[RowMapping]:
    """What belongs to a sweep; only where nothing does is it asked whether the sweep exists."""
    rows = connection.execute(query).mappings().all()
    if not rows:
        _sweep(connection, sweep_id)
    return rows


def _versions(connection: Connection, name: str) -> list[ModelVersion]:
    query = select(model_versions).where(model_versions.c.name == name).order_by(model_versions.c.version.desc())
    return [ModelVersion(**row) for row in connection.execute(query).mappings()]


def _larger(column: Any, number: int) -> Any:
    # The databases' own functions for this have different names.
    return case((column < number, number), else_=column)
