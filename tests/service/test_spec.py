"""Sweep specs: every fault is found at its place, and a legal spec has only legal trials."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import default_space, read_yaml, same, studies, study, write_yaml
from service.errors import InvalidSpec
from service.plan import Resources, Stop
from service.spec import SweepSpec
from trainables.families import FAMILIES
from trainables.trial import TrialConfig

BASE: dict[str, Any] = {"name": "first", "family": "narrow_resnet", "data": {"name": "digits"}}
RICH: dict[str, Any] = {
    "name": "nrn18.on-digits_1",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 16, "validation": 200},
    "fixed": {"model.residual": False, "train.max_epochs": 5, "data.test": 100},
    "space": {
        "model.channels": {"kind": "choice", "values": [[8, 16, 16, 16], [16, 32, 32, 32]]},
        "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 0.02, "log": True},
        "train.weight_decay": {"kind": "float", "low": 0.0, "high": 0.3, "step": 0.1},
        "train.momentum": {"kind": "float", "low": 0.5, "high": 0.9, "when": {"train.optimizer": "sgd"}},
        "train.optimizer": {"kind": "choice", "values": ["adam", "sgd"], "when": {"model.residual": False}},
        "train.batch_size": {"kind": "int", "low": 16, "high": 128, "log": True},
        "data.train": {"kind": "int", "low": 100, "high": 1100, "step": 100},
    },
    "search": {"sampler": "random", "trials": 7, "seed": 3},
    "stop": {"pruner": "none", "grace_period": 2, "reduction_factor": 3, "patience": 4, "time_budget": "1h30m"},
    "objectives": [{"metric": "validation/loss", "mode": "min"}],
    "resources": {"cpus": 2, "gpus": 0.25},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["digits", "narrow_resnet", "float", "choice", "model.channels", "train.seed", "1h", "max", "tpe"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*BASE, *RICH, *RICH["space"], "kind", "low", "when"]), inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=10,
)


FEW = {"metric": "model/parameters", "mode": "min"}
LOSS = {"metric": "validation/loss", "mode": "min"}
BATCH_SIZES = {"kind": "choice", "values": [32, 64]}


def faults(document: Any) -> dict[str, str]:
    """The messages of a bad document by their JSON pointers."""
    with pytest.raises(InvalidSpec) as caught:
        SweepSpec.from_dict(document)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def with_space(**parameters: Any) -> dict[str, Any]:
    """The smallest spec with this space; `__` stands for the dot of a name."""
    return BASE | {"space": {name.replace("__", "."): value for name, value in parameters.items()}}


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


def test_every_fault_is_listed_with_its_place() -> None:
    """One answer is enough to mend a whole spec."""
    found = faults(
        {
            "name": "Not a name",
            "familly": "narrow_resnet",
            "family": "narrow_resnet",
            "data": {"name": "digits", "train": 0, "tset": 3},
            "fixed": {"model.chanels": 1, "train.batch_size": 0, "train.patience": 3, "train.seed": 1, "sweep": 2},
            "space": {
                "train.learning_rate": {"kind": "float", "low": 0, "high": 1},
                "train.max_epochs": {"kind": "float", "low": 1, "high": 2},
                "train.weight_decay": {"kind": "float", "low": 1, "high": 0},
                "train.optimizer": {"kind": "choice", "values": ["adam", "sdg"], "when": {"model.residul": True}},
                "train.monitor": {"kind": "flot"},
                "train.momentum": {"kind": "int", "low": 0, "high": 0, "when": {"train.optimizer": "lion"}},
                "train.seed": {"kind": "int", "low": 0, "high": 1, "when": {"model.residual": True}},
                "model.channels": {"kind": "choice", "values": [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 0]]},
                "model.residual": {"kind": "int", "low": 0, "high": 1},
                "data.train": {"kind": "int", "low": 1, "high": 2, "logg": True},
            },
            "search": {"trials": 0, "smapler": "tpe"},
            "stop": {"patience": 2, "time_budget": "2 hours"},
            "objectives": [{"metric": "accuracy"}],
            "resources": {"cpus": 0, "gpus": "all"},
        }
    )
    expected = {
        "/familly": "did you mean 'family'?",
        "/name": "need 1 to 63 of a-z",
        "/data/train": "need a whole number >= 1, got 0",
        "/data/tset": "did you mean 'data.test'?",
        "/fixed/model.chanels": "did you mean 'model.channels'?",
        "/fixed/train.batch_size": "need a whole number >= 1 and <= 65536, got 0",
        "/fixed/sweep": "unknown setting 'sweep'",
        "/space/train.learning_rate/low": "need a number > 0, got 0.0",
        "/space/train.max_epochs/kind": "need int or choice for a setting of whole numbers, got 'float'",
        "/space/train.weight_decay/high": "need low <= high, got low 1.0 and high 0.0",
        "/space/train.optimizer/values/1": "did you mean 'sgd'?",
        "/space/train.optimizer/when/model.residul": "did you mean 'model.residual'?",
        "/space/train.monitor/kind": "unknown kind 'flot'",
        "/space/train.momentum/when/train.optimizer": "train.optimizer can never be 'lion'",
        "/space/train.seed": "is set under 'fixed' too",
        "/space/train.seed/when/model.residual": "model.residual can never be True",
        "/space/model.channels/values/1": "need a list of 4 items",
        "/space/model.channels/values/2/3": "need a whole number >= 1 and <= 8192, got 0",
        "/space/model.residual/kind": "need choice for a setting that is no number, got 'int'",
        "/space/data.train/logg": "did you mean 'log'?",
        "/space/data.train": "is set under 'data' too",
        "/search/trials": "need a whole number >= 1 and <= 1e+06, got 0",
        "/search/smapler": "did you mean 'sampler'?",
        "/stop/time_budget": "need a time such as 2h",
        "/objectives/0/mode": "is required and missing",
        "/resources/cpus": "need a number >= 0.0001, got 0",
        "/resources/gpus": "need a number >= 0, got 'all'",
    }
    assert {pointer: text for pointer, text in expected.items() if text not in found.get(pointer, "")} == {}
    assert found.keys() == expected.keys()


@pytest.mark.parametrize(
    ("document", "pointer", "message"),
    [
        ([], "", "need a mapping, got []"),
        ({}, "/name", "is required and missing"),
        ({}, "/family", "is required and missing; known: "),
        ({}, "/data", "is required and missing"),
        (BASE | {"name": "a" * 64}, "/name", "need 1 to 63"),
        (BASE | {"name": ".a"}, "/name", "the first a letter or digit"),
        (BASE | {"name": "a\n"}, "/name", "got 'a\\n'"),
        (BASE | {"family": "narow_resnet"}, "/family", "did you mean 'narrow_resnet'?"),
        (BASE | {"family": ["narrow_resnet"]}, "/family", "unknown family"),
        (BASE | {"data": "digits"}, "/data", "need a mapping, got 'digits'"),
        (BASE | {"data": {"image_size": 16}}, "/data/name", "is required and missing; known: "),
        (BASE | {"data": {"name": "digit"}}, "/data/name", "did you mean 'digits'?"),
        (BASE | {"fixed": None}, "/fixed", "need a mapping, got None"),
        (BASE | {"space": None}, "/space", "need a mapping, got None"),
        (BASE | {"fixed": {"data.name": "digits"}}, "/fixed/data.name", "unknown setting 'data.name'"),
        (BASE | {"fixed": {"a/b~c": 1}}, "/fixed/a~1b~0c", "unknown setting"),
        (BASE | {"fixed": {"train.learning_rate": math.nan}}, "/fixed/train.learning_rate", "need a finite number"),
        (BASE | {"fixed": {"train.seed": 2**60}}, "/fixed/train.seed", "need whole numbers between"),
        (
            BASE | {"fixed": {"data.train": 5}, "data": {"name": "digits", "train": 5}},
            "/fixed/data.train",
            "'data' too",
        ),
        (BASE | {"fixed": {"train.x": {}, "train.x.y": 1}}, "/fixed/train.x.y", "unknown setting"),
        (BASE | {"objectives": []}, "/objectives", "need a list of objectives"),
        (BASE | {"objectives": [{"metric": "accuracy", "mode": "max"}]}, "/objectives/0/metric", "unknown metric"),
        (BASE | {"objectives": [{"metric": "validation/f1", "mode": "max"}]}, "/objectives/0/metric", "on digits"),
        (BASE | {"objectives": [FEW, FEW]}, "/objectives/1", "need objectives that differ"),
        (BASE | {"objectives": [FEW]}, "/objectives/0/metric", "need what training improves first"),
        (BASE | {"objectives": [LOSS, FEW], "search": {"sampler": "gp"}}, "/search/sampler", "gp needs one objective"),
        (BASE | {"search": {"sampler": "cma-es"}}, "/search/sampler", "cma-es needs numbers, got a choice"),
        (
            with_space(
                train__optimizer={"kind": "choice", "values": ["adam", "sgd"]},
                train__momentum={"kind": "float", "low": 0, "high": 0.9, "when": {"train.optimizer": "sgd"}},
            )
            | {"search": {"sampler": "gp"}},
            "/search/sampler",
            "gp needs parameters without conditions, got one of train.momentum",
        ),
        (
            with_space(train__learning_rate={"kind": "float", "low": 0.001, "high": 0.1})
            | {"search": {"sampler": "cma-es"}},
            "/search/sampler",
            "cma-es needs at least 2 parameters that vary, got 1",
        ),
        (
            with_space(train__batch_size=BATCH_SIZES)
            | {"search": {"sampler": "grid", "enqueue": [{"train.batch_size": 32}]}},
            "/search/sampler",
            "grid tries every point",
        ),
        (
            with_space(train__batch_size=BATCH_SIZES) | {"search": {"enqueue": [{"train.batch_size": 48}]}},
            "/search/enqueue/0/train.batch_size",
            "cannot be 48",
        ),
        (
            with_space(train__batch_size=BATCH_SIZES)
            | {"search": {"trials": 1, "enqueue": [{"train.batch_size": 32}] * 2}},
            "/search/enqueue",
            "need at most the 1 points tried, got 2",
        ),
        (BASE | {"objectives": [{"metric": "validation/loss", "mode": "max"}]}, "/objectives/0/mode", "need 'min'"),
        (BASE | {"resources": {"gpus": 1.5}}, "/resources/gpus", "a share below 1 or a whole number"),
        (BASE | {"resources": {"gpus": 1e-309}}, "/resources/gpus", "need 0 or at least 0.0001, got 1e-309"),
        (BASE | {"search": 40}, "/search", "need a mapping of settings, got 40"),
        (BASE | {"stop": {"patience": 2}, "fixed": {"train.patience": 2}}, "/stop/patience", "not both"),
        (BASE | {"search": {"trials": 10**6 + 1}}, "/search/trials", "<= 1e+06, got 1000001"),
        (
            BASE | {"search": {"sampler": "grid"}},
            "/space/train.learning_rate",
            "need a choice, an int or a float with a step in a grid",
        ),
        (
            with_space(train__batch_size=BATCH_SIZES) | {"search": {"sampler": "grid", "trials": 3}},
            "/search/trials",
            "need at most the 2 points of the grid, got 3",
        ),
        (
            with_space(train__batch_size={"kind": "int", "low": 1, "high": 2**16}) | {"search": {"sampler": "grid"}},
            "/search/sampler",
            "need at most 10000 points in a grid, and this space has more",
        ),
        (
            with_space(train__seed={"kind": "int", "low": 0, "high": 9}) | {"search": {"repeats": 2}},
            "/search/repeats",
            "need 1 where train.seed is searched, got 2",
        ),
        (BASE | {"data": {"name": "cabc", "train": 10**7 + 1}}, "/data/train", "<= 1e+07, got 10000001"),
        (BASE | {"data": {"name": "pathfinder", "image_size": 1025}}, "/data/image_size", "<= 1024, got 1025"),
        (BASE | {"fixed": {f"train.x{i}": i for i in range(3000)}}, "", "need at most 5000 values in a spec, got 6008"),
    ],
)
def test_a_fault_is_found_at_its_place(document: Any, pointer: str, message: str) -> None:
    """Each rule of a spec, broken alone."""
    assert message in faults(document)[pointer]


POPULATION: dict[str, Any] = {
    **BASE,
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 0.1, "log": True}},
    "search": {"trials": 4, "pbt": {"interval": 2}},
}


def test_a_population_has_its_own_defaults() -> None:
    """What is left out beside `search.pbt` is as it must be; without it, nothing changes."""
    spec = SweepSpec.from_dict(POPULATION)
    assert (spec.search.sampler, spec.stop.pruner) == ("quasi-random", "none")
    assert SweepSpec.from_dict(spec.to_dict()) == spec
    assert SweepSpec.from_dict({**POPULATION, "search": {"pbt": None}}).search.sampler == "tpe"


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"stop": {"pruner": "asha"}}, "/stop/pruner", "need none with population-based training"),
        ({"stop": {"patience": 3}}, "/stop/patience", "got 3"),
        ({"stop": {"time_budget": "1h"}}, "/stop/time_budget", "before that none has a value; got 1h"),
        ({"fixed": {"train.patience": 2}}, "/fixed/train.patience", "need null with population-based training"),
        ({"search": {"sampler": "tpe"}}, "/search/sampler", "need random, quasi-random or grid"),
        ({"search": {"repeats": 2}}, "/search/repeats", "where trials leave their points, got 2"),
        ({"search": {"trials": 1}}, "/search/trials", "need at least 2"),
        ({"search": {"warm_start": ["other"]}}, "/search/warm_start", "whose first points know no results"),
        ({"search": {"pbt": {"interval": 80}}}, "/search/pbt/interval", "need less than the 80 steps of a trial"),
        ({"search": {"pbt": {"interval": 2, "quantile": 0.6}}}, "/search/pbt/quantile", "<= 0.5, got 0.6"),
        ({"search": {"pbt": {"interval": 2, "factors": []}}}, "/search/pbt/factors", "need at least one factor"),
        ({"search": {"pbt": {}}}, "/search/pbt/interval", "is required and missing"),
        ({"search": {"pbt": {"interval": 2}}, "stop": None}, "/stop", "need a mapping"),
        ({"objectives": [LOSS, FEW]}, "/objectives", "need one with population-based training, got 2"),
        ({"space": {}}, "/space", "need at least one setting to change"),
        (
            {"space": {"train.batch_size": {"kind": "choice", "values": [32, 64]}}},
            "/space/train.batch_size",
            "cannot change while a trial runs",
        ),
        (
            {"space": {"model.channels": {"kind": "choice", "values": [[8, 8, 8, 8], [4, 4, 4, 4]]}}},
            "/space/model.channels",
            "which changes train.learning_rate, ",
        ),
        (
            {
                "space": {
                    "train.momentum": {"kind": "choice", "values": [0.5, 0.9]},
                    "train.clip_norm": {"kind": "float", "low": 1, "high": 2, "when": {"train.momentum": 0.5}},
                }
            },
            "/space/train.clip_norm/when",
            "need no condition with population-based training, got one on train.momentum",
        ),
    ],
)
def test_what_a_population_cannot_be(changes: dict[str, Any], pointer: str, message: str) -> None:
    """Each combination that would run but mean nothing is a fault at its place."""
    document = copy.deepcopy(POPULATION)
    for part, values in changes.items():
        document[part] = {**document["search"], **values} if part == "search" else values
    assert message in faults(document)[pointer]


@pytest.mark.parametrize(
    ("name", "value"), [("family", "resnet"), ("data", {"name": "digitz"}), ("data", {}), ("space", {"a": {}})]
)
def test_an_unknown_family_or_dataset_does_not_hide_other_faults(name: str, value: Any) -> None:
    """What can be judged without it is judged; its own settings are not called unknown."""
    document = RICH | {"search": {"trials": 0}, name: value}
    found = faults(document)
    assert found.pop("/search/trials")
    assert {pointer.split("/")[1] for pointer in found} == {name}


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"data__train": {"kind": "int", "low": 100, "high": 1200}}, "/space/data.train/high"),
        ({"data__train": {"kind": "choice", "values": [100, 1200, 300]}}, "/space/data.train/values/1"),
        ({"data__validation": {"kind": "int", "low": 300, "high": 301}}, "/fixed/data.train"),
    ],
)
def test_every_corner_of_the_space_is_a_legal_trial(parameters: dict[str, Any], pointer: str) -> None:
    """A rule between settings that some corner breaks is a fault of the value that breaks it."""
    document = with_space(**parameters)
    if pointer.startswith("/fixed"):
        document |= {"fixed": {"data.train": 1197}}
    else:
        document |= {"data": {"name": "digits", "validation": 400}}
    assert "need train + validation + test <= 1797" in faults(document)[pointer]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1h1m1s", 3661), (None, None)],
)
def test_a_time_budget_is_read_in_seconds(text: str | None, seconds: int | None) -> None:
    """Hours, minutes and seconds add up."""
    assert Stop(time_budget=text).time_budget_seconds == seconds


@pytest.mark.parametrize("text", ["", "0s", "h", "30", "-1h", "1.5h", "30m1h", "1h 30m", "²h", "9999999h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A budget that ends a sweep at once, or never, is no budget."""
    with pytest.raises(ValueError, match="time_budget: need a time such as 2h"):
        Stop(time_budget=text)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_default_space_fits_its_family(family: str) -> None:
    """A family's default space is legal as it is, on a dataset that asks what it answers."""
    data = {"classification": "digits", "pose": "synthetic_scene"}
    (name,) = (data[kind] for kind in data if kind in FAMILIES[family]().tasks)
    loss = {"metric": "validation/loss", "mode": "min"}  # which every task has
    spec = SweepSpec.from_dict({"name": "a", "family": family, "data": {"name": name}, "objectives": [loss]})
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


def check(document: Any) -> None:
    """The document is refused with faults that say why, or is a spec whose points are all legal trials."""
    try:
        spec = SweepSpec.from_dict(document)
    except InvalidSpec as error:
        refused = [fault.message for fault in error.faults]
    else:
        check_legal(spec)
        return
    assert refused
    assert all(refused)


def check_legal(spec: SweepSpec) -> None:
    """The spec reads back, and all its corners and samples are legal trials that have what it says."""
    assert SweepSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    rng = Random(0)
    for point in (*spec.space.corners(), *(spec.space.sample(rng) for _ in range(3))):
        spec.space.check(point)
        trial = spec.trial(point)
        assert TrialConfig.from_dict(trial.to_dict()) == trial
        nested = {"model": trial.model.to_dict(), "train": trial.train.to_dict(), "data": trial.data.to_dict()}
        for name, value in {**spec.fixed, **point}.items():
            section, setting = name.split(".")
            assert same(nested[section][setting], value)


@given(JSON)
def test_any_json_is_a_spec_or_a_list_of_faults(document: Any) -> None:
    """Nothing that a client POSTs makes the reader fail in another way."""
    check(document)
    check(BASE | {"space": document})
    check(BASE | {"fixed": document, "data": {"name": "digits", "train": document}})


@given(st.data())
def test_a_spec_with_one_part_changed_is_a_spec_or_a_list_of_faults(data: st.DataObject) -> None:
    """Near-legal documents are judged as strictly as wild ones."""
    document = copy.deepcopy(RICH)
    place: Any = document
    while True:
        step = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[step], dict | list) or not place[step] or data.draw(st.booleans()):
            break
        place = place[step]
    place[step] = data.draw(JSON | st.sampled_from([0, 1, 2, 0.5, 16, True, [1, 1, 1, 1], "sgd", "adam"]))
    check(document)


RANGES = {
    "train.learning_rate": st.floats(1e-6, 10),
    "train.weight_decay": st.floats(0, 1),
    "train.momentum": st.floats(0, 0.99),
    "train.batch_size": st.integers(1, 2**16),
    "train.max_epochs": st.integers(1, 10**6),
    "train.patience": st.integers(1, 10**6),
    "train.seed": st.integers(0, 10**6),
    "data.image_size": st.integers(8, 1024),
    "data.train": st.integers(1, 1197),
    "data.seed": st.integers(0, 10**6),
}


@given(st.data())
def test_any_space_of_legal_ranges_makes_a_spec(data: st.DataObject) -> None:
    """Ranges and choices inside the bounds of their settings, with conditions, are always accepted."""
    space: dict[str, Any] = {"train.optimizer": {"kind": "choice", "values": ["adam", "sgd"]}}
    for name in data.draw(st.lists(st.sampled_from(sorted(RANGES)), unique=True)):
        low, high = sorted(data.draw(st.lists(RANGES[name], min_size=2, max_size=2, unique=True)))
        kind = "int" if isinstance(low, int) else "float"
        ranged = {"kind": kind, "low": low, "high": high, "log": low > 0 and data.draw(st.booleans())}
        space[name] = data.draw(st.sampled_from([ranged, {"kind": "choice", "values": [high, low]}]))
        if data.draw(st.booleans()):
            space[name]["when"] = {"train.optimizer": data.draw(st.sampled_from(["adam", "sgd"]))}
    document = BASE | {"space": space}
    assert set(SweepSpec.from_dict(document).space) == set(space)
    check(document)


def _node(cpus: float, gpus: float = 0) -> dict[str, float]:
    """A node as Ray describes it, which leaves out what it has none of."""
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "resources", "reason", "room"),
    [
        ([_node(2)], Resources(), None, 2),
        ([_node(1), _node(4, 1)], Resources(cpus=4, gpus=0.25), None, 1),
        ([_node(8, 1)], Resources(gpus=0.3), None, 3),
        ([_node(2), _node(2)], Resources(gpus=1), "a trial needs 1 GPU; the largest node has 0", 0),
        ([_node(2), _node(2)], Resources(cpus=3), "a trial needs 3 CPU; the largest node has 2", 0),
        ([_node(8), _node(1, 2)], Resources(cpus=4, gpus=2), "a trial needs 4 CPU and 2 GPU; no node has both", 0),
        ([], Resources(), "a trial needs 1 CPU; the largest node has 0", 0),
    ],
)
def test_a_trial_fits_where_one_node_can_hold_it(
    nodes: Any, resources: Resources, reason: str | None, room: int
) -> None:
    """Nodes do not add up, since a trial runs on one."""
    assert resources.misfit(nodes) == reason
    assert resources.room(nodes) == room
