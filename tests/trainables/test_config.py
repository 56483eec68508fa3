"""Configs check themselves, name every fault, and agree with the schema that they publish."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainables.config import Config, ConfigError, Fault, nearest, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull(Config):
    """A nested config with a rule between its fields."""

    start: float = setting(0.0, at_least=0, help="at the first epoch")
    end: float = setting(1.0, above=0, at_most=8, help="at the last epoch")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Pulls grow."""
        if self.start > self.end:
            yield "end", f"need start <= end, got {self.start} and {self.end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf(Config):
    """A nested config without rules."""

    rate: float = setting(help="a share", above=0, below=1)
    deep: bool = setting(True, help="a switch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(Config):
    """One field of every kind that configs hold."""

    name: str = setting("toy", help="a text")
    kind: Literal["a", "b"] = setting("a", help="a choice")
    level: Literal[1, 2] = setting(1, help="a choice of numbers")
    size: int = setting(help="a whole number", at_least=1, at_most=64)
    scale: float = setting(1.0, help="a number", above=0, below=10)
    limit: float | None = setting(None, help="a number or none", at_least=0)
    pair: tuple[int, float] = setting((1, 2.0), help="two numbers", at_least=0)
    widths: tuple[int, ...] = setting((8, 8), help="numbers", at_least=1)
    weights: Mapping[str, float] = setting({"x": 0.5}, help="numbers by name", at_least=0)
    leaf: Leaf = setting(Leaf(rate=0.5), help="a config")
    other: Leaf | None = setting(None, help="a config or none")


def test_missing_settings_take_their_defaults() -> None:
    """Only what has no default must be there; whole numbers are legal numbers."""
    toy = Toy.from_dict({"size": 3, "scale": 2, "pair": [0, 1]})
    assert (toy.size, toy.scale, toy.pair, toy.widths, toy.leaf) == (3, 2.0, (0, 1.0), (8, 8), Leaf(rate=0.5))
    assert isinstance(toy.scale, float)
    assert isinstance(toy.pair[1], float)


def test_a_config_reads_back_from_what_it_writes() -> None:
    """Plain data of JSON types say all of a config."""
    values = {"size": 1, "limit": 0, "weights": {"a": 1}, "other": {"rate": 0.1}, "widths": []}
    toy = Toy.from_dict(values)
    written = json.loads(json.dumps(toy.to_dict()))
    assert Toy.from_dict(written) == toy
    assert written["other"] == {"rate": 0.1, "deep": True}


def test_every_fault_of_a_document_is_listed() -> None:
    """Unknown, missing and illegal settings of all levels come in one error, each with its path."""
    with pytest.raises(ConfigError) as caught:
        Toy.from_dict(
            {
                "nmae": "x",
                "kind": "c",
                "level": True,
                "scale": 10,
                "limit": math.nan,
                "pair": [1],
                "widths": [1, 0, 2.0],
                "weights": {"y": "1"},
                "leaf": {"rate": 1, "dep": True},
            }
        )
    assert {fault.pointer: fault.message for fault in caught.value.faults} == {
        "/nmae": "unknown setting 'nmae'; did you mean 'name'?",
        "/kind": "need one of 'a', 'b', got 'c'; known: a, b",
        "/level": "need one of 1, 2, got True",
        "/size": "is required and missing",
        "/scale": "need a number > 0 and < 10, got 10.0",
        "/limit": "need a number >= 0, got nan",
        "/pair": "need a list of 2 items, got [1]",
        "/widths/1": "need a whole number >= 1, got 0",
        "/widths/2": "need a whole number >= 1, got 2.0",
        "/weights/y": "need a number >= 0, got '1'",
        "/leaf/dep": "unknown setting 'dep'; did you mean 'deep'?",
        "/leaf/rate": "need a number > 0 and < 1, got 1.0",
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "need a mapping of settings, got None"),
        ([], "need a mapping of settings, got []"),
        ({"size": True}, "size: need a whole number >= 1 and <= 64, got True"),
        ({"size": None}, "size: need a whole number >= 1 and <= 64, got None"),
        ({"size": 1, "scale": 10**400}, "scale: need a number > 0 and < 10, got 1000"),
        ({"size": 1, "name": 5}, "name: need a text, got 5"),
        ({"size": 1, "leaf": None}, "leaf: need a mapping of settings, got None"),
        ({"size": 1, "leaf": {"rate": 0.5, "deep": 1}}, "leaf.deep: need true or false, got 1"),
        ({"size": 1, "weights": [1]}, "weights: need a mapping, got [1]"),
        ({"size": 1, "widths": "88"}, "widths: need a list, got '88'"),
        ({"size": "x" * 1000}, f"got 'xxx{'x' * 73}..."),
    ],
)
def test_a_fault_names_the_rule_and_the_value(values: Any, message: str) -> None:
    """Each message says what was needed and what was there, cut where it is long."""
    with pytest.raises(ConfigError) as caught:
        Toy.from_dict(values)
    assert message in str(caught.value)


def test_rules_between_fields_hold_at_construction_too() -> None:
    """No config that breaks its rules can be made, by whatever way."""
    with pytest.raises(ValueError, match=r"end: need start <= end, got 3\.0 and 2\.0"):
        Pull(start=3, end=2)
    with pytest.raises(ValueError, match="start: need a number >= 0"):
        Pull(start=-1)


def test_a_config_cannot_be_changed() -> None:
    """Configs are values; what goes in is copied."""
    weights = {"a": 1.0}
    toy = Toy(size=1, weights=weights)
    weights["a"] = -5.0
    assert toy.weights["a"] == 1.0
    with pytest.raises(FrozenInstanceError):
        toy.size = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        toy.weights["a"] = 2.0  # type: ignore[index]


def test_settings_are_listed_by_their_dotted_names() -> None:
    """Nested configs are there as a whole and field by field; only what has no default is required."""
    settings = Toy.settings()
    assert set(settings) - set(Toy.field_names()) == {"leaf.rate", "leaf.deep", "other.rate", "other.deep"}
    assert {name for name, one in settings.items() if one.required} == {"size", "leaf.rate", "other.rate"}
    numbers = {name: one.number for name, one in settings.items() if one.number}
    assert numbers == {"size": int, "scale": float, "limit": float, "leaf.rate": float, "other.rate": float}


@pytest.mark.parametrize(
    ("name", "legal", "illegal"),
    [
        ("size", [1, 64], [0, 65, 1.0, True, None]),
        ("limit", [None, 0, 1.5], [-1, "1", math.inf]),
        ("level", [1, 2], [3, True, 1.0]),
        ("other", [None, {"rate": 0.5}], [{}, {"rate": 2}, 5]),
        ("leaf.rate", [0.5], [0, 1, None]),
    ],
)
def test_a_setting_can_be_checked_alone(name: str, legal: list[Any], illegal: list[Any]) -> None:
    """A value is judged by its own setting's rules, whatever the others are."""
    check = Toy.settings()[name].check
    assert [value for value in legal if check(value)] == []
    assert [value for value in illegal if not check(value)] == []


def test_a_fault_has_a_json_pointer() -> None:
    """Slashes and tildes in names are escaped (RFC 6901)."""
    assert Fault(("a/b", 0, "c~d"), "is wrong").under("x").pointer == "/x/a~1b/0/c~0d"
    assert Fault((), "is wrong").pointer == ""


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("chanels", ["channels", "residual"], "did you mean 'channels'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "none is known here"),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_one(name: str, names: list[str], hint: str) -> None:
    """A typing error is mended by reading its message."""
    assert nearest(name, names) == hint


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.floats(-1, 12).filter(lambda x: not x.is_integer())  # JSON Schema takes 2.0 for a whole number; we do not
    | st.sampled_from(["a", "c"])
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES,
        "kind": VALUES,
        "level": VALUES,
        "size": VALUES,
        "scale": VALUES,
        "limit": VALUES,
        "pair": VALUES | st.lists(VALUES, max_size=3),
        "widths": VALUES | st.lists(VALUES, max_size=3),
        "weights": VALUES | st.dictionaries(st.sampled_from(["x", "y"]), VALUES),
        "leaf": VALUES | st.fixed_dictionaries({}, optional={"rate": VALUES, "deep": VALUES, "more": VALUES}),
        "other": VALUES | st.fixed_dictionaries({}, optional={"rate": VALUES, "deep": VALUES}),
        "unknown": VALUES,
    },
)
VALIDATOR = jsonschema.Draft202012Validator(Toy.json_schema())


@given(DOCUMENTS)
@example({"size": 1})
@example({"size": 1, "pair": [0, 0.5], "widths": [], "weights": {}, "other": {"rate": 0.5}, "limit": 3})
def test_the_schema_accepts_what_the_config_accepts(document: dict[str, Any]) -> None:
    """Both judge each setting alike, so that a client may check its document by the schema."""
    for name, value in [(None, None), *document.items()]:
        tried = document if name is None else {"size": 1, name: value}
        try:
            Toy.from_dict(tried)
        except ConfigError:
            assert not VALIDATOR.is_valid(tried)
        else:
            VALIDATOR.validate(tried)


def test_the_schema_documents_every_setting() -> None:
    """Help, defaults and bounds are in the schema, which is a legal one and accepts the defaults."""
    schema = Toy.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)
    assert schema["required"] == ["size"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["size"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 64,
        "description": "a whole number",
    }
    defaults = {name: one["default"] for name, one in schema["properties"].items() if "default" in one}
    assert Toy.from_dict({"size": 1, **defaults}) == Toy(size=1)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_value_is_read_or_a_config_error(value: Any) -> None:
    """No value makes the reader fail in another way."""
    for document in (value, *({"size": 1, name: value} for name in Toy.field_names())):
        try:
            toy = Toy.from_dict(document)
        except ConfigError as error:
            told = error.faults
        else:
            assert Toy.from_dict(toy.to_dict()) == toy
            continue
        assert told
