"""Paths in the database: relative to the folder of the sweeps, so that it may be moved; absolute everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from sqlalchemy import JSON, Dialect, Engine, Text, TypeDecorator

from service.domain import Exploit, as_data

_ROOT = "sweepserve_root"


def set_root(engine: Engine, root: Path | None) -> None:
    """Says where the sweeps' folders are, for every column with paths; None: paths are kept as they are given.

    A path elsewhere is kept as it is given, too.
    """
    setattr(engine.dialect, _ROOT, root)  # all that SQLAlchemy tells the types below; each engine has its own


def _kept(path: Any, dialect: Dialect) -> Any:
    root: Path | None = getattr(dialect, _ROOT, None)
    if root is None or not path or not Path(path).is_relative_to(root):
        return path
    return str(Path(path).relative_to(root))


def _found(path: Any, dialect: Dialect) -> Any:
    root: Path | None = getattr(dialect, _ROOT, None)
    return str(root / path) if root is not None and path else path


@final
class Place(TypeDecorator[str]):
    """A path."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What goes to the database."""
        kept: str | None = _kept(value, dialect)
        return kept

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """What comes from it."""
        found: str | None = _found(value, dialect)
        return found


@final
class Exploits(TypeDecorator[tuple[Exploit, ...]]):
    """Exploits as a JSON list."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[Exploit, ...] | None, dialect: Dialect) -> Any:
        """What goes to the database."""
        return [_each_path(as_data(exploit), _kept, dialect) for exploit in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Exploit, ...]:
        """What comes from it."""
        return tuple(Exploit(**_each_path(exploit, _found, dialect)) for exploit in value)


@final
class EventData(TypeDecorator[Mapping[str, Any]]):
    """What an event tells, as a JSON object."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Any] | None, dialect: Dialect) -> Any:
        """What goes to the database."""
        return None if value is None else _each_path(value, _kept, dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """What comes from it."""
        return _each_path(value, _found, dialect)


def _each_path(data: Mapping[str, Any], change: Callable[[Any, Dialect], Any], dialect: Dialect) -> dict[str, Any]:
    """The data of a trial, an exploit, a model or of anything else, its paths changed."""
    changed = {name: change(data[name], dialect) for name in ("checkpoint", "path") if name in data}
    if "exploits" in data:
        changed["exploits"] = [_each_path(exploit, change, dialect) for exploit in data["exploits"]]
    return {**data, **changed}
