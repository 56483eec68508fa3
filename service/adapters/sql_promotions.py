"""Promotions in the database: which version of a model is its champion, and since when. See `sql_store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, delete, insert, select

from service.adapters.sql_tables import model_versions, promotions, sweeps
from service.champions import no_model, without_others
from service.domain import ModelVersion, Promotion
from service.errors import NotFound


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
    """Keeps one more promotion."""
    added = Promotion(name=version.name, number=number, version=version.version, kind=kind, at=at, by=by, reason=reason)
    connection.execute(insert(promotions).values({field.name: getattr(added, field.name) for field in fields(added)}))
    return added


def keep_only(connection: Connection, name: str, versions: Sequence[ModelVersion]) -> None:
    """Forgets the promotions of all other versions."""
    left = without_others(of(connection, name)[::-1], versions)
    connection.execute(delete(promotions).where(promotions.c.name == name))
    for promotion in left:
        row = {field.name: getattr(promotion, field.name) for field in fields(promotion)}
        connection.execute(insert(promotions).values(row))
