"""Sweep specs: what they say where little is said, and the trials that they make."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import jsonschema
import pytest

from search_spaces import default_space, read_yaml, studies, study, write_yaml
from service.spec import SweepSpec
from tests.service.spec_samples import BASE, BATCH_SIZES, RICH, with_space
from trainables.families import FAMILIES
from trainables.tasks import TASKS
from trainables.trial import TrialConfig


def test_a_grid_is_tried_whole_unless_the_spec_says_otherwise() -> None:
    """Its trials are its points; a smaller number stays."""
    document = with_space(train__batch_size=BATCH_SIZES, train__max_epochs={"kind": "int", "low": 1, "high": 3})
    assert SweepSpec.from_dict(document | {"search": {"sampler": "grid"}}).search.trials == 6
    assert SweepSpec.from_dict(document | {"search": {"sampler": "grid", "trials": 4}}).search.trials == 4


@pytest.mark.parametrize(("fixed", "seed"), [({}, 5), ({"train.seed": 40}, 40)])
def test_repeats_of_a_point_differ_in_their_seeds_only(fixed: dict[str, Any], seed: int) -> None:
    """The seeds are the same at every point, and the data stay as they are."""
    spec = SweepSpec.from_dict(BASE | {"fixed": fixed, "search": {"seed": 5, "repeats": 3}})
    for point in spec.space.corners()[:2]:
        first, second, third = (spec.trial(point, repeat).to_dict() for repeat in range(3))
        assert [trial["train"].pop("seed") for trial in (first, second, third)] == [seed, seed + 1, seed + 2]
        assert first == second == third


def test_what_is_left_out_takes_its_default() -> None:
    """Three keys make a spec: the family's default space is searched, by TPE, for the best accuracy."""
    spec = SweepSpec.from_dict(BASE)
    assert spec.to_dict() == BASE | {
        "data": {"name": "digits", "image_size": 32, "train": 1197, "validation": 300, "test": 300, "seed": 0},
        "fixed": {},
        "space": default_space("narrow_resnet").to_dict(),
        "search": {
            "sampler": "tpe",
            "trials": 40,
            "seed": 0,
            "repeats": 1,
            "aggregate": "mean",
            "population": 20,
            "pbt": None,
            "enqueue": [],
            "warm_start": [],
        },
        "stop": {
            "pruner": "asha",
            "grace_period": None,
            "reduction_factor": 4,
            "patience": None,
            "time_budget": None,
            "silence_limit": None,
        },
        "objectives": [{"metric": "validation/accuracy", "mode": "max"}],
        "resources": {"cpus": 1.0, "gpus": 0.0, "max_concurrent": None, "priority": 0, "keep_best": 10},
    }


@pytest.mark.parametrize("document", [BASE, RICH])
def test_a_spec_reads_back_from_what_it_writes(document: dict[str, Any]) -> None:
    """A spec kept as JSON or YAML is the same spec again, and its schema agrees."""
    spec = SweepSpec.from_dict(document)
    for text in (json.dumps(spec.to_dict(), allow_nan=False), write_yaml(spec.to_dict())):
        assert SweepSpec.from_dict(read_yaml(text)) == spec
    schema = SweepSpec.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)
    jsonschema.validate(spec.to_dict(), schema, jsonschema.Draft202012Validator)


def test_a_trial_merges_data_fixed_values_and_the_point() -> None:
    """Data, fixed values and the point each end up in their place; the rest of the spec fills what they leave."""
    spec = SweepSpec.from_dict(RICH)
    point = {
        "model.channels": [8, 16, 16, 16],
        "train.learning_rate": 0.001,
        "train.weight_decay": 0.1,
        "train.optimizer": "adam",
        "train.batch_size": 20,
        "data.train": 300,
    }
    assert spec.trial(point) == TrialConfig.from_dict(
        {
            "family": "narrow_resnet",
            "model": {"channels": [8, 16, 16, 16], "residual": False},
            "train": {
                "optimizer": "adam",
                "learning_rate": 0.001,
                "weight_decay": 0.1,
                "batch_size": 20,
                "max_epochs": 5,
                "patience": 4,
                "monitor": "validation/loss",
                "seed": 3,
            },
            "data": {"name": "digits", "image_size": 16, "train": 300, "validation": 200, "test": 100},
        }
    )


def test_what_is_fixed_goes_before_what_the_spec_would_fill_in() -> None:
    """The seed and the monitor of training can be fixed, or searched, apart from the search's own."""
    fixed = {"train.monitor": "validation/loss", "train.patience": 9}
    spec = SweepSpec.from_dict(with_space(train__seed={"kind": "int", "low": 0, "high": 9}) | {"fixed": fixed})
    train = spec.trial({"train.seed": 7}).train
    assert (train.seed, train.monitor, train.patience) == (7, "validation/loss", 9)


def test_a_point_that_is_no_trial_is_a_value_error() -> None:
    """Only points of the space have trials."""
    with pytest.raises(ValueError, match=r"train\.learning_rate: need a number > 0, got -1"):
        SweepSpec.from_dict(BASE).trial({"train.learning_rate": -1})


def test_fixed_values_win_over_the_default_space() -> None:
    """The default space is a default only; fixing one of its settings takes it out."""
    spec = SweepSpec.from_dict(BASE | {"fixed": {"train.learning_rate": 0.01, "model.channels": [1, 2, 3, 4]}})
    assert set(spec.space) == set(default_space("narrow_resnet")) - {"train.learning_rate", "model.channels"}
    assert spec.trial(spec.space.corners()[0]).train.learning_rate == 0.01


def test_a_condition_may_name_what_is_fixed() -> None:
    """It is settled before the search: such a parameter is always there."""
    momentum = {"kind": "float", "low": 0.5, "high": 0.9, "when": {"train.optimizer": "sgd"}}
    spec = SweepSpec.from_dict(with_space(train__momentum=momentum) | {"fixed": {"train.optimizer": "sgd"}})
    assert dict(spec.space["train.momentum"].when) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_default_space_fits_its_family(family: str) -> None:
    """A family's default space is legal as it is, on a dataset that asks what it answers."""
    small: dict[str, dict[str, Any]] = {
        "classification": {"name": "digits"},
        "panoptic": {"name": "scenes"},
        "pose": {"name": "synthetic_scene"},
        "segmentation": {"name": "pathfinder", "masks": True},
    }
    assert set(small) == set(TASKS)
    data = next(small[kind] for kind in small if kind in FAMILIES[family]().tasks)
    loss = {"metric": "validation/loss", "mode": "min"}  # which every task has
    spec = SweepSpec.from_dict({"name": "a", "family": family, "data": data, "objectives": [loss]})
    rng = Random(0)
    for _ in range(50):
        assert spec.trial(spec.space.sample(rng)).family == family


@pytest.mark.parametrize("name", studies())
def test_every_study_is_a_legal_spec(name: str) -> None:
    """What ships can be POSTed as it is."""
    assert SweepSpec.from_dict(study(name)).name == name


def test_a_spec_shares_nothing_with_its_document() -> None:
    """Changing the document afterwards changes no spec."""
    document = copy.deepcopy(RICH)
    spec = SweepSpec.from_dict(document)
    written = copy.deepcopy(spec.to_dict())
    document["space"]["model.channels"]["values"][0].append(1)
    document["fixed"]["model.residual"] = 5
    spec.to_dict()["fixed"]["model.residual"] = 5
    assert spec.to_dict() == written
