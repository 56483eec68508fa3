"""Models in the database: their versions, which of them is the champion, and since when. See `sql_store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update

from service.adapters import sql_events, sql_reading
from service.adapters.sql_tables import model_numbers, model_versions, promotions, sweeps
from service.champions import no_model, standing, without_others
from service.domain import ModelVersion, Promotion, as_data
from service.errors import Conflict, NotFound


def lock(connection: Connection, name: str) -> None:
    """Holds everybody else off the model: its sweeps' oldest row is the one that all who change it wait for."""
    connection.execute(select(sweeps.c.id).where(sweeps.c.name == name).order_by(sweeps.c.id).with_for_update())


def of(connection: Connection, name: str, *, limit: int | None = None, before: int | None = None) -> list[Promotion]:
    """A model's promotions, newest first."""
    query = select(promotions).where(promotions.c.name == name).order_by(promotions.c.number.desc())
    if before is not None:
        query = query.where(promotions.c.number < before)
    return [Promotion(**row) for row in connection.execute(query.limit(limit)).mappings()]


def champion(connection: Connection, name: str) -> ModelVersion:
    """The version of the newest promotion. Raises NotFound where there is no such model."""
    newest = (
        select(promotions.c.version)
        .where(promotions.c.name == name)
        .order_by(promotions.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(model_versions).where(model_versions.c.name == name, model_versions.c.version == newest)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(no_model(name))
    return ModelVersion(**row)


def add(
    connection: Connection,
    version: ModelVersion,
    *,
    number: int,
    kind: Literal["registered", "promoted", "rolled back"],
    at: datetime,
    by: str = "",
    reason: str = "",
) -> Promotion:
    """Keeps one more promotion, and tells of it."""
    added = Promotion(name=version.name, number=number, version=version.version, kind=kind, at=at, by=by, reason=reason)
    _keep(connection, added)
    _tell(connection, version, added)
    return added


def register(
    connection: Connection,
    *,
    name: str,
    sweep_id: str,
    trial_id: str,
    value: float,
    path: str,
    at: datetime,
    after: int | None,
) -> ModelVersion:
    """As `ports.Store.add_model_version`, within a transaction."""
    lock(connection, name)  # sweeps of one name offer versions at once
    sql_reading.sweep(connection, sweep_id, lock=True)
    trial = sql_reading.trial(connection, trial_id)
    for version in sql_reading.versions(connection, name):
        if version.trial_id == trial_id:
            return version
    if trial.weights == "removed":
        raise Conflict(trial.no_weights)
    promoted = next((one.number for one in of(connection, name, limit=1)), 0)
    if after not in (None, promoted):
        raise Conflict(f"model {name} is at promotion {promoted}, not {after}")
    added = ModelVersion(
        name=name,
        version=_next_number(connection, name),
        sweep_id=sweep_id,
        trial_id=trial_id,
        value=value,
        path=path,
        created_at=at,
    )
    row = {field.name: getattr(added, field.name) for field in fields(added)}
    connection.execute(insert(model_versions).values(row))
    add(connection, added, number=promoted + 1, kind="registered", at=at)
    return added


def _next_number(connection: Connection, name: str) -> int:
    this = model_numbers.c.name == name
    last = connection.scalar(select(model_numbers.c.version).where(this))
    number = (last or 0) + 1
    change = insert(model_numbers).values(name=name) if last is None else update(model_numbers).where(this)
    connection.execute(change.values(version=number))
    return number


def promote(connection: Connection, name: str, version: int, *, at: datetime, by: str, reason: str) -> Promotion:
    """As `ports.Store.promote`, within a transaction."""
    lock(connection, name)
    current, before = champion(connection, name), of(connection, name)
    if version == current.version:
        return before[0]
    chosen = sql_reading.version(connection, name, version)
    return add(connection, chosen, number=before[0].number + 1, kind="promoted", at=at, by=by, reason=reason)


def roll_back(connection: Connection, name: str, *, at: datetime, by: str, reason: str) -> Promotion:
    """As `ports.Store.roll_back`, within a transaction."""
    lock(connection, name)
    current, before = champion(connection, name), of(connection, name)
    versions = standing(before[::-1])
    if len(versions) < 2:
        raise Conflict(f"model {name!r} had no other champion before version {current.version}")
    chosen = sql_reading.version(connection, name, versions[-2])
    return add(connection, chosen, number=before[0].number + 1, kind="rolled back", at=at, by=by, reason=reason)


def keep_only(connection: Connection, name: str, versions: Sequence[ModelVersion]) -> None:
    """Forgets the promotions of all other versions, and tells of the one that another version has for it."""
    before = of(connection, name)[::-1]
    left = without_others(before, versions)
    connection.execute(delete(promotions).where(promotions.c.name == name))
    for promotion in left:
        _keep(connection, promotion)
        if promotion.number > before[-1].number:
            _tell(connection, champion(connection, name), promotion)


def _keep(connection: Connection, promotion: Promotion) -> None:
    row = {field.name: getattr(promotion, field.name) for field in fields(promotion)}
    connection.execute(insert(promotions).values(row))


def _tell(connection: Connection, version: ModelVersion, promotion: Promotion) -> None:
    data = {**as_data(version), "promotion": promotion.number}
    sql_events.append(connection, version.sweep_id, "model", data, promotion.at)
