"""Search spaces: conditions, samples, corners, and what is left once some values are fixed."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from search_spaces import Choice, Float, Int, SearchSpace, SpaceError, read_yaml, same, write_yaml
from search_spaces.json_values import MAX_WHOLE, key

WHOLE = st.integers(-MAX_WHOLE, MAX_WHOLE)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMES = st.sampled_from(["no", "1e-3", "train.learning_rate", "model.é", "~", "x y", "null", "012"]) | TEXT
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def parameters(draw: st.DrawFn, when: dict[str, Any]) -> Float | Int | Choice:
    """Any legal parameter under these conditions."""
    kind = draw(st.sampled_from(["float", "log float", "stepped float", "int", "log int", "choice"]))
    if kind == "choice":
        return Choice(values=tuple(draw(st.lists(VALUES, min_size=1, max_size=4, unique_by=key))), when=when)
    if kind == "int":
        low, step, steps = draw(st.integers(-1000, 1000)), draw(st.integers(1, 50)), draw(st.integers(0, 50))
        return Int(low=low, high=low + step * steps, step=step, when=when)
    if kind == "log int":
        ends = sorted(draw(st.lists(st.integers(1, MAX_WHOLE), min_size=2, max_size=2)))
        return Int(low=ends[0], high=ends[1], log=True, when=when)
    if kind == "stepped float":
        low, step = Decimal(draw(st.integers(-1000, 1000))) / 100, Decimal(draw(st.integers(1, 500))) / 100
        return Float(low=float(low), high=float(low + step * draw(st.integers(0, 50))), step=float(step), when=when)
    smallest = 5e-324 if kind == "log float" else -8e307
    ends = sorted(draw(st.lists(st.floats(smallest, 8e307), min_size=2, max_size=2)))
    return Float(low=ends[0], high=ends[1], log=kind == "log float", when=when)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Any legal space, with chains of conditions."""
    found: dict[str, Float | Int | Choice] = {}
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        parents = [n for n, p in found.items() if not isinstance(p, Float) or p.step is not None]
        when = {}
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            ends = st.sampled_from([value for _, value in found[parent].extremes()])
            when = {parent: draw(ends | st.lists(ends, min_size=1, max_size=3))}
        found[name] = draw(parameters(when))
    return SearchSpace(found)


@given(spaces())
def test_any_space_reads_back_from_yaml_and_json(space: SearchSpace) -> None:
    """A space written as YAML or JSON is the same space again, and its schema agrees."""
    written = space.to_dict()
    for text in (json.dumps(written), write_yaml(written)):
        read = read_yaml(text)
        assert same(read, written)
        assert SearchSpace.from_dict(read) == space
        assert list(SearchSpace.from_dict(read)) == list(space)
    jsonschema.Draft202012Validator(SearchSpace.json_schema()).validate(written)


@given(spaces(), st.integers(0, 2**32))
def test_any_sample_belongs_to_its_space(space: SearchSpace, seed: int) -> None:
    """A sampled point holds exactly the active parameters, each inside its range."""
    rng = Random(seed)
    for _ in range(5):
        space.check(space.sample(rng))


@given(spaces())
def test_corners_hold_every_end_and_every_choice(space: SearchSpace) -> None:
    """Corners belong to the space, differ, and leave no end of a range and no choice out."""
    corners = space.corners()
    for corner in corners:
        space.check(corner)
    assert len({key(corner) for corner in corners}) == len(corners)
    for name, parameter in space.items():
        for _, value in parameter.extremes():
            assert any(name in corner and same(corner[name], value) for corner in corners)


@given(spaces(), st.integers(0, 2**32))
def test_fixing_a_value_leaves_the_rest_of_the_space(space: SearchSpace, seed: int) -> None:
    """A point of what is left, with the fixed value, is a point of the whole; and nothing else is lost."""
    rng = Random(seed)
    point = space.sample(rng)
    free = [name for name in point if not space[name].when]
    assume(free)
    fixed = {name: point[name] for name in rng.sample(free, rng.randint(1, len(free)))}
    left = space.given(fixed)
    left.check({name: value for name, value in point.items() if name not in fixed})
    space.check({**fixed, **left.sample(rng)})


@given(st.lists(VALUES, min_size=1, max_size=5, unique_by=key), st.data())
def test_a_condition_on_a_list_holds_by_each_of_its_values(values: list[Any], data: st.DataObject) -> None:
    """In a grid, a sample and what is left of a space; a list that the parameter can be is that one value."""
    wanted = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    parent = Choice(values=tuple(values))
    space = SearchSpace({"parent": parent, "child": Int(low=0, high=0, when={"parent": wanted})})
    meets = [wanted] if parent.allows(wanted) else wanted
    for point in (*space.grid(), space.at([data.draw(st.floats(0, 1, exclude_max=True)), 0])):
        holds = any(same(point["parent"], value) for value in meets)
        assert ("child" in point) == holds == ("child" in space.given({"parent": point["parent"]}))
        space.check(point)
        with pytest.raises(SpaceError):
            space.check({"parent": point["parent"]} if holds else {**point, "child": 0})


def conditional() -> SearchSpace:
    """Momentum only with SGD; a schedule only with momentum 0.9."""
    return SearchSpace(
        {
            "schedule": Choice(values=("cosine", "flat"), when={"momentum": 0.9}),
            "momentum": Float(low=0.5, high=0.9, step=0.4, when={"optimizer": "sgd"}),
            "optimizer": Choice(values=("adam", "sgd")),
            "depth": Int(low=2, high=5),
        }
    )


def test_parents_come_before_their_children() -> None:
    """Whatever the order in which a space is written, a walk through it meets parents first."""
    order = list(conditional())
    assert order.index("optimizer") < order.index("momentum") < order.index("schedule")


def test_corners_of_a_small_space() -> None:
    """All low ends, all high ends, and each value of each choice beside both."""
    plain, momentum = ("optimizer", "depth"), ("optimizer", "depth", "momentum")
    whole = (*momentum, "schedule")
    expected = [
        dict(zip(plain, ("adam", 2), strict=True)),  # all low ends
        dict(zip(whole, ("sgd", 5, 0.9, "flat"), strict=True)),  # all high ends
        dict(zip(plain, ("adam", 5), strict=True)),
        dict(zip(momentum, ("sgd", 2, 0.5), strict=True)),
        dict(zip(momentum, ("sgd", 5, 0.5), strict=True)),
        dict(zip(whole, ("sgd", 2, 0.9, "flat"), strict=True)),
        dict(zip(whole, ("sgd", 2, 0.9, "cosine"), strict=True)),
        dict(zip(whole, ("sgd", 5, 0.9, "cosine"), strict=True)),
    ]
    corners = conditional().corners()
    assert corners[:2] == expected[:2]
    assert sorted(map(str, corners)) == sorted(map(str, expected))


@pytest.mark.parametrize(
    ("point", "faults"),
    [
        ({"optimizer": "adam", "depth": 3}, []),
        ({"optimizer": "adam", "depth": 3, "momentum": 0.9}, ["momentum: is there only when optimizer is 'sgd'"]),
        ({"optimizer": "sgd", "depth": 3}, ["momentum: is missing"]),
        (
            {"optimizer": "lion", "depth": 3.5, "deph": 1},
            ["deph: no such", "optimizer: cannot be", "depth: cannot be 3.5"],
        ),
        ({}, ["optimizer: is missing", "depth: is missing"]),
    ],
)
def test_a_point_outside_the_space_is_told_why(point: dict[str, Any], faults: list[str]) -> None:
    """Unknown, missing, inactive and impossible values are all listed."""
    if not faults:
        conditional().check(point)
        return
    with pytest.raises(SpaceError) as caught:
        conditional().check(point)
    found = [f"{'.'.join(map(str, path))}: {message}" for path, message in caught.value.faults]
    assert [text.startswith(start) for text, start in zip(found, faults, strict=True)] == [True] * len(faults)


@pytest.mark.parametrize(
    ("fixed", "left"),
    [
        ({"optimizer": "adam"}, {"depth": {}}),
        ({"optimizer": "sgd"}, {"depth": {}, "momentum": {}, "schedule": {"momentum": 0.9}}),
        ({"momentum": 0.9}, {"optimizer": {}, "depth": {}, "schedule": {}}),
        ({"depth": 9}, {"optimizer": {}, "momentum": {"optimizer": "sgd"}, "schedule": {"momentum": 0.9}}),
        ({"other": 1}, {"optimizer": {}, "depth": {}, "momentum": {"optimizer": "sgd"}, "schedule": {"momentum": 0.9}}),
    ],
)
def test_fixed_values_settle_conditions(fixed: dict[str, Any], left: dict[str, dict[str, Any]]) -> None:
    """A condition on a fixed value is met and goes, or takes its parameter and all that hang on it along."""
    assert {name: dict(p.when) for name, p in conditional().given(fixed).items()} == left


@pytest.mark.parametrize(
    ("described", "path", "message"),
    [
        ({"a": {"kind": "int", "low": 0, "high": 1, "when": {"b": 1}}}, ("a", "when", "b"), "no parameter 'b'"),
        (
            {"a": {"kind": "choice", "values": [1, 0]}, "b": {"kind": "choice", "values": [0], "when": {"a": True}}},
            ("b", "when", "a"),
            "a can never be True",
        ),
        (
            {
                "a": {"kind": "int", "low": 1, "high": 5, "step": 2},
                "b": {"kind": "choice", "values": [0], "when": {"a": 2}},
            },
            ("b", "when", "a"),
            "a can never be 2",
        ),
        (
            {"a": {"kind": "float", "low": 0, "high": 1}, "b": {"kind": "choice", "values": [0], "when": {"a": 0.5}}},
            ("b", "when", "a"),
            "but a is continuous",
        ),
        (
            {
                "a": {"kind": "choice", "values": [1], "when": {"b": 1}},
                "b": {"kind": "choice", "values": [1], "when": {"c": 1}},
                "c": {"kind": "choice", "values": [1], "when": {"a": 1}},
            },
            None,
            "conditions lead back to themselves",
        ),
        (
            {"a": {"kind": "choice", "values": [1], "when": {"a": 1}}},
            ("a", "when", "a"),
            "lead back to themselves: a -> a",
        ),
        (
            {
                "a": {"kind": "choice", "values": [1, 2]},
                "b": {"kind": "choice", "values": [1], "when": {"a": 1}},
                "c": {"kind": "choice", "values": [1], "when": {"b": 1, "a": 2}},
            },
            ("c", "when"),
            "can never hold: no value of a is left",
        ),
        (
            {
                "a": {"kind": "choice", "values": [1, 2, 3]},
                "b": {"kind": "choice", "values": [1], "when": {"a": [1, 2]}},
                "c": {"kind": "choice", "values": [1], "when": {"a": [2, 3]}},
                "d": {"kind": "choice", "values": [1], "when": {"b": 1, "c": 1, "a": [1, 3]}},
            },
            ("d", "when"),
            "can never hold: no value of a is left",
        ),
        (
            {"a": {"kind": "choice", "values": [1, 2]}, "b": {"kind": "choice", "values": [0], "when": {"a": [1, 3]}}},
            ("b", "when", "a"),
            "a can never be 3",
        ),
        (
            {"a": {"kind": "choice", "values": [1, 2]}, "b": {"kind": "choice", "values": [0], "when": {"a": []}}},
            ("b", "when", "a"),
            "need a value, or a list of at least one",
        ),
        (
            {
                "a": {"kind": "choice", "values": [1, 2]},
                "b": {"kind": "choice", "values": [1], "when": {"a": 1}},
                "c": {"kind": "choice", "values": [1], "when": {"a": 2}},
                "d": {"kind": "choice", "values": [1], "when": {"b": 1, "c": 1}},
            },
            ("d", "when"),
            "can never hold",
        ),
        ([], (), "need a mapping of names to parameters"),
    ],
)
def test_conditions_that_cannot_be_are_faults(described: Any, path: tuple[str, ...] | None, message: str) -> None:
    """Unknown parents, impossible values, contradictions and circles are found before anything runs."""
    with pytest.raises(SpaceError, match=message.replace(".", r"\.")) as caught:
        SearchSpace.from_dict(described)
    assert path is None or caught.value.faults[0][0] == path


def test_a_grid_has_every_point_once() -> None:
    """Steps of numbers and values of choices, and a conditional parameter only where it is active."""
    space = SearchSpace.from_dict(
        {
            "momentum": {"kind": "float", "low": 0.1, "high": 0.3, "step": 0.1, "when": {"optimizer": "sgd"}},
            "optimizer": {"kind": "choice", "values": ["adam", "sgd"]},
            "depth": {"kind": "int", "low": 2, "high": 6, "step": 2},
        }
    )
    points = list(space.grid())
    for point in points:
        space.check(point)
    assert len(points) == len({key(point) for point in points}) == (1 + 3) * 3
    assert {point["momentum"] for point in points if "momentum" in point} == {0.1, 0.2, 0.3}


def test_a_continuum_has_no_grid() -> None:
    """Every parameter that is one is named."""
    space = SearchSpace({"a": Float(low=0, high=1), "b": Int(low=0, high=1), "c": Float(low=0, high=1)})
    with pytest.raises(SpaceError) as caught:
        next(space.grid())
    assert [path for path, _ in caught.value.faults] == [("a",), ("c",)]


def test_every_fault_of_a_space_is_listed() -> None:
    """Faults of parameters and of conditions come together; a broken parent is not called unknown."""
    with pytest.raises(SpaceError) as caught:
        SearchSpace.from_dict(
            {
                "a": {"kind": "int", "low": 2, "high": 1},
                "b": {"kind": "choice", "values": [1], "when": {"a": 1, "z": 1}},
                "c": {"kind": "wild"},
            }
        )
    assert [path for path, _ in caught.value.faults] == [("a", "high"), ("c", "kind"), ("b", "when", "z")]
