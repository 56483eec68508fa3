"""A search space: parameters by name, some of which are there only when others have certain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from random import Random
from types import MappingProxyType
from typing import Any, Self, final

from search_spaces.json_values import SpaceError, SpaceFault, key, plain, same, shown
from search_spaces.parameters import Choice, Float, Int, parameter_from_dict


@final
@dataclass(frozen=True, slots=True)
class SearchSpace(Mapping[str, Float | Int | Choice]):
    """A mapping from names to parameters, parents before the parameters whose conditions name them.

    A point is a mapping from names to values; it holds exactly the parameters that are active in it.

    Raises:
        SpaceError: a condition that names no parameter, can never hold, or leads back to itself.
    """

    parameters: Mapping[str, Float | Int | Choice]

    def __post_init__(self) -> None:
        order, faults = _related(self.parameters)
        if faults:
            raise SpaceError(faults)
        object.__setattr__(self, "parameters", MappingProxyType({name: self.parameters[name] for name in order}))

    def __getitem__(self, name: str) -> Float | Int | Choice:
        return self.parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The space that plain data describes.

        Raises:
            SpaceError: with every fault of every parameter and of the conditions between them.
        """
        if not isinstance(values, Mapping):
            raise SpaceError([((), f"need a mapping of names to parameters, got {shown(values)}")])
        parameters: dict[str, Float | Int | Choice] = {}
        faults: list[SpaceFault] = []
        for name, value in values.items():
            try:
                parameters[str(name)] = parameter_from_dict(value)
            except SpaceError as error:
                faults.extend(((str(name), *path), message) for path, message in error.faults)
        unread = frozenset(map(str, values)) - parameters.keys()
        faults.extend(_related(parameters, unread)[1])
        if faults:
            raise SpaceError(faults)
        return cls(parameters)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON types only) that `from_dict` reads back to an equal space."""
        return {name: parameter.to_dict() for name, parameter in self.items()}

    def is_active(self, name: str, point: Mapping[str, Any]) -> bool:
        """All conditions of this parameter hold in the point."""
        return all(parent in point and self._holds(parent, point[parent], of) for parent, of in self[name].when.items())

    def sample(self, rng: Random) -> dict[str, Any]:
        """A point at random: each active parameter drawn by itself."""
        return self.at([rng.random() for _ in self])

    def at(self, shares: Sequence[float]) -> dict[str, Any]:
        """The point at these coordinates in the unit cube, 0 <= share < 1, one a parameter, active or not."""
        point: dict[str, Any] = {}
        for (name, parameter), share in zip(self.items(), shares, strict=True):
            if self.is_active(name, point):
                point[name] = parameter.at(share)
        return point

    def corner(self, rng: Random) -> dict[str, Any]:
        """A corner at random: each active parameter at one of its ends."""
        point: dict[str, Any] = {}
        for name, parameter in self.items():
            if self.is_active(name, point):
                point[name] = rng.choice(parameter.extremes())[1]
        return point

    def check(self, point: Mapping[str, Any]) -> None:
        """Returns if the point belongs to the space.

        Raises:
            SpaceError: names that are unknown, missing or not active here, and values out of their range.
        """
        faults: list[SpaceFault] = [((name,), "no such parameter in this space") for name in point if name not in self]
        active: dict[str, Any] = {}
        for name, parameter in self.items():
            if not self.is_active(name, active):
                if name in point:
                    faults.append(((name,), f"is there only when {_said(parameter.when)}"))
            elif name not in point:
                faults.append(((name,), "is missing"))
            else:
                active[name] = point[name]
                if not parameter.allows(point[name]):
                    faults.append(((name,), f"cannot be {shown(point[name])}"))
        if faults:
            raise SpaceError(faults)

    def corners(self) -> list[dict[str, Any]]:
        """Points that hold both ends of every range and every choice, beside the low ends and beside the high ones.

        What is legal at all of them is very likely legal everywhere between.
        """
        demands: list[dict[str, Any]] = [{}]
        needs = _needs(self.parameters)
        extremes = {name: [value for _, value in parameter.extremes()] for name, parameter in self.items()}
        for name in self:
            first = {other: values[0] for other, values in needs[name].items()}
            demands.extend({**first, name: value} for value in extremes[name])
        found: dict[object, dict[str, Any]] = {}
        for demand in demands:
            for end in (0, -1):
                point: dict[str, Any] = {}
                for name in self:
                    if self.is_active(name, point):
                        point[name] = plain(demand[name] if name in demand else extremes[name][end])
                found.setdefault(key(point), point)
        return list(found.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point, the last parameter changing fastest; a parameter varies only where it is active.

        Raises:
            SpaceError: naming every parameter whose values are a continuum.
        """
        continua = [name for name, parameter in self.items() if parameter.every() is None]
        if continua:
            raise SpaceError([((name,), "need a choice, an int or a float with a step in a grid") for name in continua])
        return self._grid({}, list(self))

    def _grid(self, point: dict[str, Any], left: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not left:
            yield point
        elif self.is_active(left[0], point):
            for value in self[left[0]].every() or ():
                yield from self._grid({**point, left[0]: value}, left[1:])
        else:
            yield from self._grid(point, left[1:])

    def given(self, fixed: Mapping[str, Any]) -> SearchSpace:
        """What is left to search once these values are fixed.

        Their own parameters go; conditions on them are met, or the parameter goes too.
        """
        left: dict[str, Float | Int | Choice] = {}
        for name, parameter in self.items():
            unmet = {parent: value for parent, value in parameter.when.items() if parent not in fixed}
            met = all(
                self._holds(parent, fixed[parent], of) for parent, of in parameter.when.items() if parent in fixed
            )
            if name not in fixed and met and unmet.keys() <= left.keys():
                left[name] = dataclasses.replace(parameter, when=unmet)
        return SearchSpace(left)

    def _holds(self, parent: str, value: Any, condition: Any) -> bool:
        held = key(value)
        return any(key(wanted) == held for wanted in _wanted(self[parent], condition))

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of what `from_dict` reads."""
        number, whole = {"type": "number"}, {"type": "integer"}
        fields: dict[str, dict[str, Any]] = {
            "float": {"low": number, "high": number, "step": {"anyOf": [number, {"type": "null"}]}},
            "int": {"low": whole, "high": whole, "step": {**whole, "default": 1}},
            "choice": {"values": {"type": "array", "minItems": 1, "uniqueItems": True}},
        }
        kinds = []
        for kind, own in fields.items():
            log = {"log": {"type": "boolean", "default": False}} if kind != "choice" else {}
            when = {
                "when": {"type": "object", "description": "other parameters and the value each must have, or a list"}
            }
            kinds.append(
                {
                    "type": "object",
                    "properties": {"kind": {"const": kind}, **own, **log, **when},
                    "required": ["kind", *(name for name in own if name != "step")],
                    "additionalProperties": False,
                }
            )
        return {"type": "object", "additionalProperties": {"oneOf": kinds}}


def _related(
    parameters: Mapping[str, Float | Int | Choice], unread: frozenset[str] = frozenset()
) -> tuple[list[str], list[SpaceFault]]:
    """The names, parents first, and what is wrong between parameters. Of `unread` ones only the names are known."""
    faults: list[SpaceFault] = []
    for name, parameter in parameters.items():
        for parent, condition in parameter.when.items():
            if parent not in unread:
                message = _impossible(parent, parameters.get(parent), condition)
                faults.extend([((name, "when", parent), message)] if message else [])
    graph = {name: [p for p in parameter.when if p in parameters] for name, parameter in parameters.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = error.args[1]
        faults.append(((cycle[1], "when", cycle[0]), f"conditions lead back to themselves: {' -> '.join(cycle)}"))
        return list(parameters), faults
    if not faults and not unread:
        ordered = {name: parameters[name] for name in order}
        faults.extend(((name, "when"), message) for name, message in _contradictions(ordered))
    return order, faults


def _wanted(parameter: Float | Int | Choice, condition: Any) -> list[Any]:
    """The values of a parameter by which a condition on it holds: one, or any of a list, unless that itself is one."""
    return condition if isinstance(condition, list) and not parameter.allows(condition) else [condition]


def _impossible(name: str, parameter: Float | Int | Choice | None, condition: Any) -> str:
    """Why the condition can never hold by one of its values; empty if it can by each."""
    if parameter is None:
        return f"no parameter {shown(name)} is searched here"
    if isinstance(parameter, Float) and parameter.step is None:
        return f"need a choice, an int or a float with a step, but {name} is continuous"
    wanted = _wanted(parameter, condition)
    if not wanted:
        return "need a value, or a list of at least one"
    never = [shown(value) for value in wanted if not parameter.allows(value)]
    return f"{name} can never be {' or '.join(never)}" if never else ""


def _needs(parameters: Mapping[str, Float | Int | Choice]) -> dict[str, dict[str, list[Any]]]:
    """All that must hold where each parameter is active, its own conditions and those of its parents and so on.

    By name, the values that are left by all of them.
    """
    needs: dict[str, dict[str, list[Any]]] = {}
    for name, parameter in parameters.items():
        needs[name] = {}
        own = {parent: _wanted(parameters[parent], condition) for parent, condition in parameter.when.items()}
        for others in (own, *(needs[parent] for parent in own)):
            for other, values in others.items():
                left = needs[name].get(other, values)
                needs[name][other] = [value for value in left if any(same(value, one) for one in values)]
    return needs


def _contradictions(parameters: Mapping[str, Float | Int | Choice]) -> Iterator[tuple[str, str]]:
    needs = _needs(parameters)
    for name, parameter in parameters.items():
        for other, values in needs[name].items():
            if not values and all(needs[parent].get(other, True) for parent in parameter.when):
                yield name, f"can never hold: no value of {other} is left by it and by what its parents need"


def _said(when: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} is {shown(value)}" for name, value in when.items())
