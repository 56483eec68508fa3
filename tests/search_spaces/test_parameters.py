"""Parameters check themselves, sample what they allow, and read back what they wrote."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Choice, Float, Int, SpaceError, parameter_from_dict, plain, same

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("description", "path", "message"),
    [
        (5, (), "need a mapping"),
        ({}, ("kind",), "required and missing; known: float, int, choice"),
        ({"kind": "flot"}, ("kind",), "unknown kind 'flot'"),
        ({"kind": ["float"]}, ("kind",), "unknown kind ['float']"),
        ({"kind": "float", "low": 1, "hihg": 2, "high": 3}, ("hihg",), "did you mean 'high'?"),
        ({"kind": "float", "low": 1}, ("high",), "required and missing"),
        ({"kind": "float", "low": 2, "high": 1}, ("high",), "need low <= high, got low 2.0 and high 1.0"),
        ({"kind": "float", "low": "0", "high": 1}, ("low",), "need a finite number, got '0'"),
        ({"kind": "float", "low": False, "high": 1}, ("low",), "need a finite number, got False"),
        ({"kind": "float", "low": 0, "high": math.inf}, ("high",), "need a finite number, got inf"),
        ({"kind": "float", "low": math.nan, "high": 1}, ("low",), "need a finite number, got nan"),
        ({"kind": "float", "low": 0, "high": 10**400}, ("high",), "need a finite number, got 1000"),
        ({"kind": "float", "low": -1e308, "high": 1e308}, ("high",), "need a range narrower than"),
        ({"kind": "float", "low": 0, "high": 1, "log": True}, ("low",), "need low > 0 on a log scale"),
        ({"kind": "float", "low": 1, "high": 2, "log": 1}, ("log",), "need true or false, got 1"),
        ({"kind": "float", "low": 1, "high": 2, "step": 0}, ("step",), "need step > 0"),
        ({"kind": "float", "low": 1, "high": 2, "step": 0.3}, ("step",), "multiple of step"),
        ({"kind": "float", "low": 1, "high": 2, "step": 1, "log": True}, ("step",), "no step on a log scale"),
        ({"kind": "int", "low": 1.0, "high": 2}, ("low",), "need a whole number"),
        ({"kind": "int", "low": True, "high": 2}, ("low",), "need a whole number"),
        ({"kind": "int", "low": 0, "high": 2**53}, ("high",), "need a whole number"),
        ({"kind": "int", "low": 0, "high": 3, "step": 2}, ("step",), "multiple of step"),
        ({"kind": "int", "low": 0, "high": 3, "log": True}, ("low",), "need low > 0 on a log scale"),
        ({"kind": "int", "low": 1, "high": 3, "log": True, "step": 2}, ("step",), "no step on a log scale"),
        ({"kind": "choice", "values": []}, ("values",), "at least one value"),
        ({"kind": "choice", "values": "abc"}, ("values",), "need a list"),
        ({"kind": "choice", "values": [1, 2, 1.0]}, ("values", 2), "need values that differ"),
        ({"kind": "choice", "values": [[1, math.nan]]}, ("values", 0, 1), "need a finite number"),
        ({"kind": "choice", "values": ["\ud800"]}, ("values", 0), "lone surrogates"),
        ({"kind": "choice", "values": [1], "low": 1}, ("low",), "unknown key 'low' of a choice"),
        ({"kind": "choice", "values": [1], "when": [1]}, ("when",), "need a mapping"),
        ({"kind": "choice", "values": [1], "when": {"a": math.inf}}, ("when", "a"), "need a finite number"),
    ],
)
def test_a_fault_names_its_place_the_rule_and_the_value(
    description: Any, path: tuple[str | int, ...], message: str
) -> None:
    """Each broken rule is one fault at the place that breaks it."""
    with pytest.raises(SpaceError) as caught:
        parameter_from_dict(description)
    assert [(where, message in text) for where, text in caught.value.faults] == [(path, True)]
    assert message in str(caught.value)


def test_every_fault_of_a_parameter_is_listed() -> None:
    """One answer is enough to mend all that is wrong."""
    with pytest.raises(SpaceError) as caught:
        Float(low=0, high=-1, log=True, step=0.5, when={"a": math.inf})
    assert [path for path, _ in caught.value.faults] == [("low",), ("high",), ("step",), ("when", "a")]


def test_whole_numbers_are_legal_ends_of_a_float() -> None:
    """JSON writers drop the point of 1.0."""
    parameter = parameter_from_dict({"kind": "float", "low": 1, "high": 2})
    assert isinstance(parameter, Float)
    assert isinstance(parameter.low, float)


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (Float(low=0.1, high=0.7, step=0.2), [0.1, 0.3, 0.5, 0.7, 0.1 + 2 * 0.2], [0.2, 0.9, "0.1", True, None]),
        (Float(low=0.0, high=1.0), [0, 1, 0.123], [-1e-9, 1.0000001, math.nan, False]),
        (Int(low=-2, high=4, step=3), [-2, 1, 4], [0, 7, 1.0, True]),
        (Choice(values=(1, "1", [1, 2], None)), [1, 1.0, "1", [1, 2], (1, 2), None], [True, 2, [2, 1], [1]]),
        (Choice(values=(True, {"a": [1]})), [True, {"a": [1.0]}], [1, {"a": [True]}, {"a": [1], "b": 1}]),
    ],
)
def test_a_parameter_allows_its_values_and_no_others(
    parameter: Float | Int | Choice, inside: list[Any], outside: list[Any]
) -> None:
    """Values are compared as JSON: 1 is 1.0, and is not true."""
    assert [value for value in inside if not parameter.allows(value)] == []
    assert [value for value in outside if parameter.allows(value)] == []


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (Float(low=0.1, high=0.4, step=0.1), {0.1, 0.2, 0.3, 0.4}),
        (Int(low=3, high=9, step=2), {3, 5, 7, 9}),
        (Int(low=1, high=4, log=True), {1, 2, 3, 4}),
        (Choice(values=("a", None, True)), {"a", None, True}),
    ],
)
def test_samples_reach_every_value(parameter: Float | Int | Choice, values: set[Any]) -> None:
    """Both ends and all between come up, exactly as written, and nothing else."""
    rng = Random(0)
    assert {parameter.sample(rng) for _ in range(400)} == values


@pytest.mark.parametrize("parameter", [Float(low=1e-4, high=1.0, log=True), Int(low=1, high=10**4, log=True)])
def test_a_log_scale_gives_each_decade_its_share(parameter: Float | Int) -> None:
    """Of 4,000 samples over 4 decades, each decade gets 1,000 within 5 standard deviations (27 each)."""
    rng = Random(0)
    decades = Counter(int(math.log10(parameter.sample(rng) / parameter.low)) for _ in range(4000))
    for decade in range(1, 4):  # half of the whole numbers' first decade lies below 1.5
        assert decades[decade] == pytest.approx(1000, abs=150)


def test_what_is_handed_out_is_a_copy() -> None:
    """A caller that changes a sampled list changes nothing else."""
    values = [[1, 2]]
    parameter = Choice(values=values)  # type: ignore[arg-type]
    values[0].append(3)
    parameter.sample(Random(0)).append(4)
    parameter.extremes()[0][1].append(5)
    parameter.to_dict()["values"][0].append(6)
    assert parameter.values == ([1, 2],)


def test_the_dictionary_form_keeps_every_field() -> None:
    """What is written says the kind and every default, and reads back equal."""
    parameter = Int(low=1, high=9, step=2, when={"a": [1, None]})
    written = {"kind": "int", "low": 1, "high": 9, "log": False, "step": 2, "when": {"a": [1, None]}}
    assert parameter.to_dict() == written
    assert parameter_from_dict(written) == parameter


@given(JSON)
def test_any_json_is_a_parameter_or_a_space_error(value: Any) -> None:
    """Nothing that a client sends escapes the check."""
    for kind in ("float", "int", "choice"):
        for document in (value, {"kind": kind, "low": value, "high": value, "values": [value], "when": value}):
            with pytest.raises(SpaceError):
                parameter_from_dict(document)
        described = {"kind": kind, "when": {}}
        described |= {"values": [value]} if kind == "choice" else {"low": value, "high": value}
        try:
            parameter = parameter_from_dict(described)
        except SpaceError:
            continue
        assert parameter.allows(value)
        assert parameter.allows(parameter.sample(Random(0)))


@given(JSON, JSON)
def test_values_are_the_same_exactly_when_json_says_so(one: Any, other: Any) -> None:
    """Equality is that of the written documents, in which 1 and 1.0 are one number."""
    assert same(one, one)
    assert same(one, other) == same(other, one)
    if same(one, other):
        assert type(one) is type(other) or {type(one), type(other)} == {int, float}


def test_a_document_of_any_depth_is_judged() -> None:
    """Very deep lists are a fault, not a crash."""
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SpaceError, match="at most 16 lists and mappings"):
        plain(deep)
    while isinstance(deep, list):  # taken apart here: freeing it whole would recurse
        deep = deep.pop()


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, b"x", "a\0b", 2**60, [object()]])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    """Bytes, sets, numbered keys, NUL characters and inexact whole numbers are faults."""
    with pytest.raises(SpaceError):
        plain(value)
