"""Trials: whole points, made of three parts addressed by dotted names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import ConfigError
from trainables.trial import TrialConfig, nest


def test_parts_left_out_take_their_defaults() -> None:
    """A family and a dataset make a trial."""
    trial = TrialConfig.from_dict({"family": "narrow_resnet", "data": {"name": "digits"}})
    assert trial.train.optimizer == "adam"
    assert trial.data.name == "digits"


def test_a_trial_reads_back_from_what_it_writes() -> None:
    """Plain data say all of a trial."""
    trial = TrialConfig.from_dict(
        {
            "family": "narrow_resnet",
            "model": {"channels": [1, 2, 3, 4], "residual": False},
            "train": {"learning_rate": 1, "patience": 3},
            "data": {"name": "digits", "image_size": 16},
        }
    )
    assert TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial


def test_faults_of_all_parts_come_together() -> None:
    """Each is told with its path from the trial's root."""
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_dict(
            {
                "family": "narrow_resnet",
                "modle": {},
                "model": {"channels": [1, 2, 3, 0]},
                "train": {"batch_size": 0, "learning_rat": 1},
                "data": {"name": "digits", "image_size": 1},
            }
        )
    assert {fault.pointer: fault.message for fault in caught.value.faults} == {
        "/modle": "unknown section 'modle'; did you mean 'model'?",
        "/model/channels/3": "need a whole number >= 1 and <= 8192, got 0",
        "/train/batch_size": "need a whole number >= 1 and <= 65536, got 0",
        "/train/learning_rat": "unknown setting 'learning_rat'; did you mean 'learning_rate'?",
        "/data/image_size": "need a whole number >= 8 and <= 1024, got 1",
    }


@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        (5, [""]),
        ({}, ["/family", "/data/name"]),
        ({"family": "narow_resnet", "data": {"name": "digits"}}, ["/family"]),
        ({"family": ["narrow_resnet"], "data": {"name": {}}}, ["/family", "/data/name"]),
        ({"family": "narrow_resnet", "data": "digits"}, ["/data/name"]),
        ({"family": "narrow_resnet", "data": {"name": "digits"}, "train": 5, "model": None}, ["/train", "/model"]),
    ],
)
def test_no_document_gets_past_the_reader(values: Any, pointers: list[str]) -> None:
    """Wrong types are faults like any other."""
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_dict(values)
    assert sorted(fault.pointer for fault in caught.value.faults) == sorted(pointers)


def test_dotted_names_become_groups() -> None:
    """Names that share a beginning share a group; values are kept as they are."""
    dotted = {"train.pull.end": 1, "model.channels": [1, 2], "train.pull.start": 0, "train.seed": {"a": 1}, "x": None}
    assert nest(dotted) == {
        "train": {"pull": {"end": 1, "start": 0}, "seed": {"a": 1}},
        "model": {"channels": [1, 2]},
        "x": None,
    }


@pytest.mark.parametrize(
    "dotted",
    [
        {"a": 1, "a.b": 2},
        {"a.b": 2, "a": 1},
        {"a": {}, "a.b": 2},
        {"a.b": 2, "a": {"c": 1}},
        {"a.b.c": 1, "a": 1},
        {"a.b.c": 1, "x": 1, "a.b": 2},
    ],
)
def test_a_name_is_a_value_or_a_group(dotted: dict[str, Any]) -> None:
    """Both at once is an error, in any order, even where the value is a mapping."""
    with pytest.raises(ValueError, match="is both a value and a group"):
        nest(dotted)


@given(
    st.recursive(
        st.integers(),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        max_leaves=8,
    ).filter(lambda tree: isinstance(tree, dict))
)
def test_nesting_is_the_inverse_of_naming_by_dots(tree: dict[str, Any]) -> None:
    """Any tree, written with dotted names, is itself again, and the names are left as they were."""

    def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in tree.items():
            found |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return found

    names = dotted(tree)
    before = dict(names)
    assert nest(names) == tree
    assert names == before
