"""What one parameter may be: a range of numbers, a range of whole numbers, or one of some values."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from fractions import Fraction
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar, final

from search_spaces.json_values import MAX_WHOLE, Path, SpaceError, SpaceFault, key, plain, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(ABC):
    """One parameter of a space. It is part of a point only where all of `when` holds.

    Raises:
        SpaceError: naming each field, the rule and the value.
    """

    kind: ClassVar[str]
    when: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other parameters' names and the value that each must have, or a list of several."""

    def __post_init__(self) -> None:
        faults = list(self._faults())
        when: Any = self.when
        try:
            when = plain(when)
        except SpaceError as error:
            faults.extend((("when", *path), message) for path, message in error.faults)
        if not isinstance(when, Mapping):
            faults.append((("when",), f"need a mapping of other parameters to values, got {shown(when)}"))
        if faults:
            raise SpaceError(faults)
        object.__setattr__(self, "when", MappingProxyType(when))

    @abstractmethod
    def _faults(self) -> Iterator[SpaceFault]:
        """What is wrong with the fields of this kind, which are in their final form afterwards."""

    @abstractmethod
    def extremes(self) -> list[tuple[Path, Any]]:
        """The values at its ends, or every value of a choice, each with its path in `to_dict()`."""

    @abstractmethod
    def every(self) -> Iterator[Any] | None:
        """Every value in its order; None: they are a continuum."""

    @abstractmethod
    def at(self, share: float) -> Any:
        """The value at a share, 0 <= share < 1, of the way (on a logarithmic scale if `log`) through all values."""

    def sample(self, rng: Random) -> Any:
        """A value drawn evenly (on a logarithmic scale if `log`)."""
        return self.at(rng.random())

    @abstractmethod
    def allows(self, value: Any) -> bool:
        """The value is one that this parameter can take."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON types only) that `parameter_from_dict` reads back."""
        fields = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        when = fields.pop("when")
        set_ = {name: value for name, value in fields.items() if value is not None}
        return {"kind": self.kind, **set_, **({"when": when} if when else {})}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Float(Parameter):
    """A number from `low` to `high`, both included; with `step`, one of low, low + step, ..., high."""

    kind: ClassVar[str] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def _faults(self) -> Iterator[SpaceFault]:
        stepped = ("step",) if self.step is not None else ()
        for name in ("low", "high", *stepped):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and abs(value) <= sys.float_info.max:  # false for NaN too
                object.__setattr__(self, name, float(value))
            else:
                yield (name,), f"need a finite number, got {shown(value)}"
                return
        if math.isinf(self.high - self.low):
            yield ("high",), f"need a range narrower than {sys.float_info.max:g}, got {self.low!r} to {self.high!r}"
        yield from _range_faults(self)
        if self.log and self.step is not None:
            yield ("step",), f"need no step on a log scale, got {self.step!r}"

    def extremes(self) -> list[tuple[Path, Any]]:
        """`low` and `high`."""
        return [(("low",), self.low), (("high",), self.high)]

    def every(self) -> Iterator[float] | None:
        """Its steps, if it has some."""
        if self.step is None:
            return None
        low, step = self.low, self.step
        return (_stepped(low, step, i) for i in range(round(_steps(low, self.high, step)) + 1))

    def at(self, share: float) -> float:
        """Between the ends; steps have the same share each."""
        if self.step is not None:
            return _stepped(self.low, self.step, int(share * (1 + round(_steps(self.low, self.high, self.step)))))
        if self.log:
            value = math.exp(_between(math.log(self.low), math.log(self.high), share))
        else:
            value = _between(self.low, self.high, share)
        return min(max(value, self.low), self.high)  # rounding may step over an end

    def allows(self, value: Any) -> bool:
        """A number in the range and, to within rounding, on a step."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        return math.isclose(value, self.nearest(value), rel_tol=1e-9, abs_tol=1e-9 * self.step)

    def nearest(self, value: float) -> float:
        """The legal value nearest to a number."""
        within = min(max(value, self.low), self.high)
        if self.step is None:
            return within
        return _stepped(self.low, self.step, round(_steps(self.low, within, self.step)))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Int(Parameter):
    """A whole number from `low` to `high`, both included, in steps of `step`."""

    kind: ClassVar[str] = "int"
    low: int
    high: int
    log: bool = False
    step: int = 1

    def _faults(self) -> Iterator[SpaceFault]:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_WHOLE:
                yield (name,), f"need a whole number between -(2**53 - 1) and 2**53 - 1, got {shown(value)}"
                return
        yield from _range_faults(self)
        if self.log and self.step != 1:
            yield ("step",), f"need no step on a log scale, got {self.step!r}"

    def extremes(self) -> list[tuple[Path, Any]]:
        """`low` and `high`."""
        return [(("low",), self.low), (("high",), self.high)]

    def every(self) -> Iterator[int]:
        """Its steps."""
        return iter(range(self.low, self.high + 1, self.step))

    def at(self, share: float) -> int:
        """Between the ends; steps have the same share each, on a logarithmic scale what lies around them."""
        if self.log:  # each whole number owns the interval half a step to either side
            value = round(math.exp(_between(math.log(self.low - 0.5), math.log(self.high + 0.5), share)))
            return min(max(value, self.low), self.high)
        steps = 1 + (self.high - self.low) // self.step
        return self.low + self.step * min(int(share * steps), steps - 1)

    def allows(self, value: Any) -> bool:
        """A whole number in the range and on a step."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def nearest(self, value: float) -> int:
        """The legal value nearest to a number."""
        within = min(max(value, self.low), self.high)
        return self.low + self.step * round((within - self.low) / self.step)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Parameter):
    """One of `values`, which are any JSON values: texts, numbers, lists, ..."""

    kind: ClassVar[str] = "choice"
    values: tuple[Any, ...]

    def _faults(self) -> Iterator[SpaceFault]:
        if not isinstance(self.values, list | tuple) or not self.values:
            yield ("values",), f"need a list of at least one value, got {shown(self.values)}"
            return
        try:
            object.__setattr__(self, "values", tuple(plain(self.values)))
        except SpaceError as error:
            yield from ((("values", *path), message) for path, message in error.faults)
            return
        seen: dict[object, int] = {}
        for i, value in enumerate(self.values):
            first = seen.setdefault(key(value), i)
            if first != i:
                yield ("values", i), f"need values that differ, got {shown(value)} again (it is number {first} too)"

    def extremes(self) -> list[tuple[Path, Any]]:
        """Every value."""
        return [(("values", i), plain(value)) for i, value in enumerate(self.values)]

    def every(self) -> Iterator[Any]:
        """Its values."""
        return map(plain, self.values)

    def at(self, share: float) -> Any:
        """One of the values, the same share each."""
        return plain(self.values[int(share * len(self.values))])

    def allows(self, value: Any) -> bool:
        """One of the values, compared as JSON."""
        wanted = key(value)  # once: it may be a long list
        return any(key(own) == wanted for own in self.values)


KINDS: Mapping[str, type[Float] | type[Int] | type[Choice]] = {kind.kind: kind for kind in (Float, Int, Choice)}


def parameter_from_dict(values: Any) -> Float | Int | Choice:
    """The parameter that plain data describes, told apart by its `kind`.

    Raises:
        SpaceError: listing unknown keys (with the nearest legal one), missing ones and illegal values.
    """
    if not isinstance(values, Mapping):
        raise SpaceError([((), f"need a mapping with a kind ({', '.join(KINDS)}), got {shown(values)}")])
    name = values.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        rule = "is required and missing" if "kind" not in values else f"unknown kind {shown(name)}"
        raise SpaceError([(("kind",), f"{rule}; known: {', '.join(KINDS)}")])
    fields = {field.name: field for field in dataclasses.fields(KINDS[name])}
    given = {str(key): value for key, value in values.items() if key != "kind"}
    faults: list[SpaceFault] = []
    for unknown in given.keys() - fields.keys():
        close = difflib.get_close_matches(unknown, fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(fields)}"
        faults.append(((unknown,), f"unknown key {shown(unknown)} of a {name}; {hint}"))
    faults.extend(
        ((field.name,), "is required and missing")
        for field in fields.values()
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING
    )
    if faults:
        raise SpaceError(sorted(faults))
    return KINDS[name](**given)


def _range_faults(range_: Float | Int) -> Iterator[SpaceFault]:
    low, high, step = range_.low, range_.high, range_.step
    log: Any = range_.log
    if not isinstance(log, bool):
        yield ("log",), f"need true or false, got {shown(log)}"
    elif log and low <= 0:
        yield ("low",), f"need low > 0 on a log scale, got {low!r}"
    if low > high:
        yield ("high",), f"need low <= high, got low {low!r} and high {high!r}"
    if step is not None and step <= 0:
        yield ("step",), f"need step > 0, got {step!r}"
    elif step is not None and _steps(low, high, step).denominator != 1:
        yield ("step",), f"need high - low to be a multiple of step, got {low!r} to {high!r} in steps of {step!r}"


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


# Steps are counted in numbers as they are written: three steps of 0.1 are 0.3, which binary fractions would miss.


def _steps(low: float, high: float, step: float) -> Fraction:
    return (Fraction(repr(high)) - Fraction(repr(low))) / Fraction(repr(step))


def _stepped(low: float, step: float, steps: int) -> float:
    return float(Fraction(repr(low)) + steps * Fraction(repr(step)))
