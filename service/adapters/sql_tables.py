"""The tables. A change here needs a new revision in migrations/versions; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from service.adapters.sql_places import EventData, Exploits, Place
from service.domain import SweepState, TrialState


class UtcDateTime(TypeDecorator[datetime]):
    """Times in UTC, also where the database (SQLite) has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """What goes to the database."""
        if value is None:
            return None
        assert value.tzinfo is not None, f"times need a zone, got {value}"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """What comes from it."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Name(TypeDecorator[str]):
    """A short text. What no database takes (NUL, halves of characters) becomes `?`: such a name is only ever sought."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """What goes to the database."""
        return None if value is None else value.encode("utf-8", "replace").decode().replace("\0", "?")


class Numbers(TypeDecorator[tuple[float, ...]]):
    """A tuple of numbers as a JSON list."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[float, ...] | None:  # noqa: ARG002
        """What comes from the database."""
        return None if value is None else tuple(value)


def _state(kind: type[StrEnum]) -> Enum:
    # As text: a new state then needs no migration.
    return Enum(kind, native_enum=False, length=16, values_callable=lambda states: [state.value for state in states])


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("id", Name(64), primary_key=True),
    Column("name", Name(255), nullable=False, index=True),
    Column("state", _state(SweepState), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("family", Name(64), nullable=False, server_default="", index=True),  # of the spec, to filter by
    Column("priority", Integer, nullable=False, server_default="0"),  # of the spec, to queue by
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False),
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("running_since", UtcDateTime),
    Column("ran", Double, nullable=False, server_default="0"),
    Column("finished_at", UtcDateTime),
    Column("moved_at", UtcDateTime),
    Column("last_event", Integer, nullable=False),
    Column("tracked", Integer, nullable=False),
    Column("trace", String(64), nullable=False, server_default=""),
    Column("spec", JSON, nullable=False),
    Index(None, "created_at", "id"),
    Index(None, "state", "priority", "created_at", "id"),
)

claims = Table(
    "claims",
    metadata,
    Column("key", String(64), primary_key=True),  # the caller's own may be long: its SHA-256
    Column("fingerprint", String(64), nullable=False),
    Column("sweep_id", Name(64), nullable=False),  # which may not be there yet
    Column("at", UtcDateTime, nullable=False, index=True),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Name(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("beat", Integer, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Name(64), primary_key=True),
    Column("sweep_id", Name(64), ForeignKey("sweeps.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("repeat", Integer, nullable=False, server_default="0"),
    Column("point", JSON, nullable=False),
    Column("exploits", Exploits, nullable=False, server_default="[]"),
    Column("state", _state(TrialState), nullable=False),
    Column("reason", Text, nullable=False),
    Column("values", Numbers),
    Column("value", Double),  # the first of `values` of a completed trial, to sort by
    Column("step", Integer, nullable=False),
    Column("checkpoint", Place),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    UniqueConstraint("sweep_id", "number"),
    Index(None, "sweep_id", "state", "value", "number"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("trial_id", Name(64), ForeignKey("trials.id"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("metrics", JSON, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("sweep_id", Name(64), ForeignKey("sweeps.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", EventData, nullable=False),
    sqlite_with_rowid=False,
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("name", Name(255), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sweep_id", Name(64), ForeignKey("sweeps.id"), nullable=False),
    Column("trial_id", Name(64), ForeignKey("trials.id"), nullable=False),
    Column("value", Double, nullable=False),
    Column("path", Place, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("name", "trial_id"),
)

model_numbers = Table(  # what deleting a sweep leaves of its models
    "model_numbers",
    metadata,
    Column("name", Name(255), primary_key=True),
    Column("version", Integer, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("name", Name(255), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Name(64), primary_key=True),
    Column("name", Name(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("rate", Integer),
    Column("max_body_bytes", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)

deeds = Table(
    "deeds",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Name(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("trace_id", String(32), nullable=False),
)
