"""Questions to the database, each within a connection's transaction: sweeps, trials, measurements, models, in pages.

A page goes on after a place in the order of its list, not after a count: what comes and goes does not move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, func, literal, select, tuple_

from service.adapters.sql_tables import measurements, model_versions, promotions, sweeps, trials
from service.domain import Measurement, ModelVersion, Sweep, SweepState, Trial, TrialState
from service.errors import NotFound

_SWEEP = [sweeps.c[field.name] for field in fields(Sweep)]
_TRIAL = [trials.c[field.name] for field in fields(Trial)]


def sweep(connection: Connection, sweep_id: str, *, lock: bool = False) -> Sweep:
    """The sweep of this id."""
    query = select(*_SWEEP).where(sweeps.c.id == sweep_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return Sweep(**row)


def lock_sweep_of(connection: Connection, trial_id: str) -> None:
    """Holds everybody else off the trial, by the row of its sweep."""
    of_trial = select(trials.c.sweep_id).where(trials.c.id == trial_id).scalar_subquery()
    if connection.scalar(select(sweeps.c.id).where(sweeps.c.id == of_trial).with_for_update()) is None:
        raise NotFound(f"there is no trial {trial_id!r}")


def list_sweeps(
    connection: Connection,
    *,
    states: Sequence[SweepState],
    name: str | None,
    family: str | None,
    limit: int | None,
    before: tuple[datetime, str] | None,
) -> list[Sweep]:
    """Newest first."""
    query = select(*_SWEEP).order_by(sweeps.c.created_at.desc(), sweeps.c.id.desc()).limit(limit)
    if states:
        query = query.where(sweeps.c.state.in_(states))
    if name is not None:
        query = query.where(sweeps.c.name == name)
    if family is not None:
        query = query.where(sweeps.c.family == family)
    if before is not None:
        place = (
            literal(at, column.type) for at, column in zip(before, (sweeps.c.created_at, sweeps.c.id), strict=True)
        )
        query = query.where(tuple_(sweeps.c.created_at, sweeps.c.id) < tuple_(*place))
    return [Sweep(**row) for row in connection.execute(query).mappings()]


def untracked(connection: Connection) -> list[Sweep]:
    """Sweeps with events that the tracker lacks, oldest first."""
    query = select(*_SWEEP).where(sweeps.c.tracked < sweeps.c.last_event).order_by(sweeps.c.created_at, sweeps.c.id)
    return [Sweep(**row) for row in connection.execute(query).mappings()]


def trial(connection: Connection, trial_id: str) -> Trial:
    """The trial of this id."""
    row = connection.execute(select(*_TRIAL).where(trials.c.id == trial_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no trial {trial_id!r}")
    return Trial(**row)


def list_trials(
    connection: Connection,
    sweep_id: str,
    states: Sequence[TrialState],
    numbers: Sequence[int] | None = None,
    *,
    limit: int | None = None,
    after: int | None = None,
) -> list[Trial]:
    """By number."""
    query = select(*_TRIAL).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number).limit(limit)
    if states:
        query = query.where(trials.c.state.in_(states))
    if numbers is not None:
        query = query.where(trials.c.number.in_(numbers))
    if after is not None:
        query = query.where(trials.c.number > after)
    return [Trial(**row) for row in rows(connection, query, sweep_id)]


def count_trials(connection: Connection, sweep_id: str) -> dict[TrialState, int]:
    """By state."""
    query = select(trials.c.state, func.count()).where(trials.c.sweep_id == sweep_id).group_by(trials.c.state)
    return {row["state"]: row["count"] for row in rows(connection, query, sweep_id)}


def completed(connection: Connection, sweep_id: str) -> list[int]:
    """The numbers of the completed ones."""
    query = select(trials.c.number).where(trials.c.sweep_id == sweep_id, trials.c.state == TrialState.COMPLETED)
    return [row["number"] for row in rows(connection, query, sweep_id)]


def best_trials(
    connection: Connection,
    sweep_id: str,
    *,
    mode: Literal["min", "max"],
    limit: int | None,
    after: tuple[float, int] | None,
) -> list[Trial]:
    """Completed ones, best first."""
    value, number = trials.c["value"], trials.c.number
    query = (
        select(*_TRIAL)
        .where(trials.c.sweep_id == sweep_id, trials.c.state == TrialState.COMPLETED)
        .order_by(value.desc() if mode == "max" else value.asc(), number)
        .limit(limit)
    )
    if after is not None:  # said so that an index finds the place
        worse, not_better = (
            (value < after[0], value <= after[0]) if mode == "max" else (value > after[0], value >= after[0])
        )
        query = query.where(not_better, worse | (number > after[1]))
    return [Trial(**row) for row in rows(connection, query, sweep_id)]


def list_measurements(
    connection: Connection,
    sweep_id: str,
    *,
    trial_id: str | None,
    limit: int | None,
    after: tuple[str, int] | None,
) -> list[Measurement]:
    """By the trials' numbers, then by step."""
    query = _measured(sweep_id).limit(limit)
    if trial_id is not None:
        query = query.where(trials.c.id == trial_id)
    if after is not None:
        number = trial(connection, after[0]).number
        later = (trials.c.number > number) | (measurements.c.step > after[1])
        query = query.where(trials.c.number >= number, later)
    found = [Measurement(**row) for row in rows(connection, query, sweep_id)]
    if not found and trial_id is not None:
        trial(connection, trial_id)
    return found


def curves(connection: Connection, sweep_id: str, trial_ids: Sequence[str], *, points: int | None) -> list[Measurement]:
    """By the trials' numbers, then by step; of each at most so many, evenly spaced, the last one among them."""
    query = _measured(sweep_id).where(trials.c.id.in_(trial_ids))
    if points is not None:
        stride = (trials.c.step + (points - 1)) // points
        query = query.where((trials.c.step - measurements.c.step) % func.nullif(stride, 0) == 0)
    return [Measurement(**row) for row in rows(connection, query, sweep_id)]


def champions(
    connection: Connection, *, family: str | None, limit: int | None, after: str | None
) -> list[ModelVersion]:
    """The champion of every model, by name."""
    newest = select(promotions.c.name, func.max(promotions.c.number)).group_by(promotions.c.name)
    chosen = select(promotions.c.name, promotions.c.version)
    chosen = chosen.where(tuple_(promotions.c.name, promotions.c.number).in_(newest))
    name: ColumnElement[str] = model_versions.c.name
    if connection.dialect.name == "postgresql":
        name = name.collate("C")  # by the characters' numbers, as Python and SQLite do
    query = select(model_versions).order_by(name).limit(limit)
    query = query.where(tuple_(model_versions.c.name, model_versions.c.version).in_(chosen))
    if family is not None:
        query = query.join(sweeps, sweeps.c.id == model_versions.c.sweep_id).where(sweeps.c.family == family)
    if after is not None:
        query = query.where(name > after)
    return [ModelVersion(**row) for row in connection.execute(query).mappings()]


def versions(
    connection: Connection, name: str, *, limit: int | None = None, before: int | None = None
) -> list[ModelVersion]:
    """A model's versions, newest first."""
    query = select(model_versions).where(model_versions.c.name == name).order_by(model_versions.c.version.desc())
    if before is not None:
        query = query.where(model_versions.c.version < before)
    return [ModelVersion(**row) for row in connection.execute(query.limit(limit)).mappings()]


def version(connection: Connection, name: str, number: int) -> ModelVersion:
    """The version of a model with this number."""
    query = select(model_versions).where(model_versions.c.name == name, model_versions.c.version == number)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no version {number} of model {name!r}")
    return ModelVersion(**row)


def rows(connection: Connection, query: Select[Any], sweep_id: str) -> Sequence[RowMapping]:
    """What belongs to a sweep; only where nothing does is it asked whether the sweep exists."""
    found = connection.execute(query).mappings().all()
    if not found:
        sweep(connection, sweep_id)
    return found


def _measured(sweep_id: str) -> Select[Any]:
    order = trials.c.number, measurements.c.step
    return select(measurements).join(trials).where(trials.c.sweep_id == sweep_id).order_by(*order)
