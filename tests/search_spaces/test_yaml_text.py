"""YAML by the core schema of YAML 1.2, without its traps."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import read_yaml, same, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-4", 1e-4),
        ("-.5", -0.5),
        ("1E5", 1e5),
        (".inf", math.inf),
        ("012", 12),
        ("0o14", 12),
        ("0x1F", 31),
        ("+1", 1),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("none", "none"),
        ("'1e-3'", "1e-3"),
        ("True", True),
        ("~", None),
        ("", None),
        ("<<: 1", {"<<": 1}),
        ("{a: [1, 2.0, x], b: {c: null}}", {"a": [1, 2.0, "x"], "b": {"c": None}}),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    """Numbers in any notation are numbers; words, times and dates are texts."""
    read = read_yaml(text)
    assert type(read) is type(value)
    assert read == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice"),
        ("x:\n  'a': 1\n  a: 2\n", "line 3: the key 'a' is there twice"),
        ("a: &x [1]\nb: *x\n", r"line 2: need each value written out where it stands, got the alias \*x"),
        ("&x [*x]", "got the alias"),
        ("a: [1, 2", "line 1: expected ',' or ']'"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ("? [a]\n: 1", "line 1: found unhashable key"),
        ("!!python/object:os.system {}", "line 1: could not determine a constructor"),
        ("a\0b", "no YAML text"),
        ("!!int abc", "abc"),
        ("[" * 5000, "no YAML text"),
    ],
)
def test_a_bad_text_is_a_value_error_with_its_line(text: str, message: str) -> None:
    """The message says what is wrong and where."""
    with pytest.raises(ValueError, match=message):
        read_yaml(text)


@given(st.text(st.sampled_from(list("ab1e-:{}[],&*!?|>'\"#%@ \n.~\t\\")), max_size=20) | st.text(max_size=20))
def test_any_text_is_read_or_a_value_error(text: str) -> None:
    """No text makes the reader fail in another way."""
    with contextlib.suppress(ValueError):
        read_yaml(text)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8)
        | st.sampled_from(
            ["1e-3", "1e5", "no", "~", "0o7", "012", ".5", "1.", "+1e1", "null", "-", "a: b", "#", " x "]
        ),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_reads_back(value: Any) -> None:
    """Texts that look like numbers stay texts, and numbers stay exact."""
    assert same(read_yaml(write_yaml(value)), value)
