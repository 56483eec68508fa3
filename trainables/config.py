"""Frozen settings that check themselves and can be read from data.

A config is a frozen dataclass whose fields are declared with `setting(...)`. The one declaration gives the check at
construction, the message of a fault, the JSON Schema and the help text. Reading collects every fault of a whole
nested document, each with its path, so that a user mends a spec in one go.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Self, TypeVar

from trainables.checked_text import CheckedText

Path = tuple[str | int, ...]
C = TypeVar("C", bound="Config")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document: where (`path`, from its root) and which rule was broken by which value."""

    path: Path
    message: str

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer (RFC 6901)."""
        return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in self.path)

    def under(self, *prefix: str | int) -> Fault:
        """The same fault seen from a document that holds this one at `prefix`."""
        return Fault((*prefix, *self.path), self.message)

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.path)
        return f"{where}: {self.message}" if where else self.message


class ConfigError(ValueError):
    """A config broke its rules; `faults` lists every one."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        assert faults, "a ConfigError needs at least one fault"
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


def setting(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002 - the field's standard name for it
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a config with its documentation and its bounds.

    Bounds hold for numbers and for every item of a tuple or mapping of numbers.
    """
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"help": help, "bounds": {name: bound for name, bound in bounds.items() if bound is not None}}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: types.MappingProxyType(dict(default)), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint that ends an "unknown name" message: the nearest legal name, or all of them."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(sorted(names)) if names else "none is known here"


def shown(value: Any) -> str:
    """The value in a message: cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a config, by itself."""

    hint: Any
    bounds: Mapping[str, float]
    required: bool

    @property
    def number(self) -> type[int] | type[float] | None:
        """The kind of number that it takes, any within its bounds; None: it takes something else."""
        for kind in (self.hint, *typing.get_args(self.hint)):
            if kind in (int, float) and typing.get_origin(self.hint) in (None, typing.Union, types.UnionType):
                return int if kind is int else float
        return None

    def check(self, value: Any) -> list[Fault]:
        """What is wrong with this value, whatever the other settings are."""
        return _read(value, self.hint, self.bounds)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Base of all configs: checks its fields when made, reads from and writes to plain data.

    Raises:
        ConfigError: (a ValueError) naming each field, the rule and the value.
    """

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            read, found = _read(value, _hints(type(self))[field.name], field.metadata.get("bounds", {}))
            faults.extend(fault.under(field.name) for fault in found)
            if not found:
                object.__setattr__(self, field.name, read)
        if not faults:
            faults.extend(Fault((name,) if name else (), message) for name, message in self.rules())
        if faults:
            raise ConfigError(faults)

    def rules(self) -> Iterator[tuple[str, str]]:
        """What is wrong across fields, as (field, message). Families and datasets override this."""
        yield from ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that a plain mapping describes; missing fields take their defaults.

        Raises:
            ConfigError: listing unknown keys (with the nearest legal name), missing ones and illegal values.
        """
        config, faults = _read_config(cls, values)
        if faults:
            raise ConfigError(faults)
        assert config is not None
        return config

    def to_dict(self) -> dict[str, Any]:
        """The config as plain data (JSON types only); `from_dict` gives back an equal config."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The config's JSON Schema (draft 2020-12), with defaults and help texts."""
        properties = {}
        required = []
        for field in dataclasses.fields(cls):
            schema = _schema(_hints(cls)[field.name], field.metadata.get("bounds", {}))
            if "help" in field.metadata:
                schema["description"] = field.metadata["help"]
            if field.default is MISSING and field.default_factory is MISSING:
                required.append(field.name)
            else:
                made = field.default_factory() if field.default_factory is not MISSING else field.default
                schema["default"] = _plain(made)
            properties[field.name] = schema
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        return schema

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """Every setting by its dotted name: `pull`, and `pull.end` where `pull` is a config itself."""
        found: dict[str, Setting] = {}
        for field in dataclasses.fields(cls):
            hint, required = _hints(cls)[field.name], field.default is MISSING and field.default_factory is MISSING
            found[field.name] = Setting(hint, field.metadata.get("bounds", {}), required)
            optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
            for kind in typing.get_args(hint) if optional else (hint,):
                if isinstance(kind, type) and issubclass(kind, Config):
                    found.update((f"{field.name}.{name}", inner) for name, inner in kind.settings().items())
        return found

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names that `from_dict` takes."""
        return tuple(field.name for field in dataclasses.fields(cls))


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    # Resolving annotations takes far longer than checking the values, and a sweep makes many configs.
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _read_config(cls: type[C], values: Any) -> tuple[C | None, list[Fault]]:
    if not isinstance(values, Mapping):
        return None, [Fault((), f"need a mapping of settings, got {shown(values)}")]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    faults = [
        Fault((str(key),), f"unknown setting {shown(key)}; {nearest(str(key), list(fields))}")
        for key in values
        if key not in fields
    ]
    read: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            value, found = _read(values[name], _hints(cls)[name], field.metadata.get("bounds", {}))
            faults.extend(fault.under(name) for fault in found)
            read[name] = value
        elif field.default is MISSING and field.default_factory is MISSING:
            faults.append(Fault((name,), "is required and missing"))
    if faults:
        return None, faults
    try:
        return cls(**read), []
    except ConfigError as error:
        return None, list(error.faults)


_BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "at_least": (operator.ge, ">="),
    "above": (operator.gt, ">"),
    "at_most": (operator.le, "<="),
    "below": (operator.lt, "<"),
}
_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _read(value: Any, hint: Any, bounds: Mapping[str, float]) -> tuple[Any, list[Fault]]:
    """The value as the annotated type, or the faults that keep it from being one."""
    if hint is Any:
        return value, []
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None, []
        (inner,) = (arg for arg in args if arg is not type(None))  # the only unions in configs are optionals
        return _read(value, inner, bounds)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value, []
        hint_text = f"; {nearest(value, [str(a) for a in args])}" if isinstance(value, str) else ""
        return value, [Fault((), f"need one of {', '.join(map(repr, args))}, got {shown(value)}{hint_text}")]
    if origin is tuple:
        return _read_tuple(value, args, bounds)
    if origin in (dict, collections.abc.Mapping):
        return _read_mapping(value, args[1], bounds)
    if isinstance(hint, type) and issubclass(hint, Config):
        return (value, []) if isinstance(value, hint) else _read_config(hint, value)
    return _read_scalar(value, hint, bounds)


def _read_scalar(value: Any, kind: type, bounds: Mapping[str, float]) -> tuple[Any, list[Fault]]:
    if issubclass(kind, CheckedText):
        return _read_text(value, kind)
    assert kind in _WORDS, f"configs hold numbers, texts, tuples, mappings and configs, not {kind}"
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # then it stays whole, and no number that a float can hold
            value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return value, [Fault((), f"need {_WORDS[kind]}{_rule(bounds)}, got {shown(value)}")]
    legal = all(_BOUNDS[name][0](value, bound) for name, bound in bounds.items())
    if not legal or (isinstance(value, float) and not math.isfinite(value)):
        return value, [Fault((), f"need {_WORDS[kind]}{_rule(bounds)}, got {shown(value)}")]
    return value, []


def _read_text(value: Any, kind: type[CheckedText]) -> tuple[Any, list[Fault]]:
    if not isinstance(value, str):
        return value, [Fault((), f"need {kind.RULE}, got {shown(value)}")]
    try:
        return kind(value), []
    except ValueError as error:
        return value, [Fault((), str(error))]


def _rule(bounds: Mapping[str, float]) -> str:
    return "".join(f" {_BOUNDS[name][1]} {bound:g}" if i == 0 else f" and {_BOUNDS[name][1]} {bound:g}"
                   for i, (name, bound) in enumerate(bounds.items()))  # fmt: skip


def _read_tuple(value: Any, args: tuple[Any, ...], bounds: Mapping[str, float]) -> tuple[Any, list[Fault]]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value, [Fault((), f"need a list, got {shown(value)}")]
    hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(hints) != len(value):
        return value, [Fault((), f"need a list of {len(hints)} items, got {shown(list(value))}")]
    read: list[Any] = []
    faults: list[Fault] = []
    for i, (item, hint) in enumerate(zip(value, hints, strict=True)):
        one, found = _read(item, hint, bounds)
        read.append(one)
        faults.extend(fault.under(i) for fault in found)
    return tuple(read), faults


def _read_mapping(value: Any, hint: Any, bounds: Mapping[str, float]) -> tuple[Any, list[Fault]]:
    if not isinstance(value, Mapping):
        return value, [Fault((), f"need a mapping, got {shown(value)}")]
    read: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, item in value.items():
        read[str(key)], found = _read(item, hint, bounds)
        faults.extend(fault.under(str(key)) for fault in found)
    return types.MappingProxyType(read), faults


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, CheckedText):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
_JSON_BOUNDS = {"at_least": "minimum", "above": "exclusiveMinimum", "at_most": "maximum", "below": "exclusiveMaximum"}


def _schema(hint: Any, bounds: Mapping[str, float]) -> dict[str, Any]:
    if hint is Any:
        return {}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))
        return {"anyOf": [_schema(inner, bounds), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0], bounds)}
    if origin is tuple:
        return {
            "type": "array",
            "prefixItems": [_schema(arg, bounds) for arg in args],
            "minItems": len(args),
            "maxItems": len(args),
        }
    if origin in (dict, collections.abc.Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], bounds)}
    if isinstance(hint, type) and issubclass(hint, Config):
        return hint.json_schema()
    if isinstance(hint, type) and issubclass(hint, CheckedText):
        return {"type": "string", "pattern": hint.PATTERN}
    return {"type": _JSON_TYPES[hint], **{_JSON_BOUNDS[name]: bound for name, bound in bounds.items()}}
