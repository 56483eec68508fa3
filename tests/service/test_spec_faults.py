"""Faults of a spec: each is found at its place, and none hides another."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from service.spec import SweepSpec
from tests.service.spec_samples import BASE, BATCH_SIZES, RICH, faults, with_space
from trainables.families import FAMILIES

FEW = {"metric": "model/parameters", "mode": "min"}
LOSS = {"metric": "validation/loss", "mode": "min"}


def test_every_fault_is_listed_with_its_place() -> None:
    """One answer is enough to mend a whole spec."""
    found = faults(
        {
            "name": "Not a name",
            "familly": "narrow_resnet",
            "scale": {"data": {"train": 48}},
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
        "/scale": "is applied (--scaled) or left out by `sweepserve submit`",
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
        (
            BASE | {"stop": {"patience": 2}, "fixed": {"train.keep": "last"}},
            "/stop/patience",
            "need none with keep last",
        ),
        (
            BASE | {"family": "contour_rnn", "fixed": {"train.compile": "on"}},
            "/fixed/train.compile",
            "need off for contour_rnn",
        ),
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
        (
            with_space(train__seed={"kind": "choice", "values": list(range(1000))}),
            "/space",
            "need at most 1000 values in a space, got 1004",
        ),
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


def inside(document: Any) -> dict[str, str]:
    """What is wrong inside the space of a document whose corners are legal."""
    return {fault.pointer: fault.message for fault in SweepSpec.from_dict(document).inner_faults()}


KERNELS: dict[str, Any] = {**BASE, "family": "contour_rnn", "data": {"name": "pathfinder"}}
PULLS: dict[str, Any] = {
    **BASE,
    "family": "shared_resnet",
    "fixed": {"model.sharing": "relaxed"},
    "space": {
        "train.pull.kind": {"kind": "choice", "values": ["constant", "adaptive", "linear"]},
        "train.pull.start": {"kind": "float", "low": 1e-3, "high": 1, "log": True},
        "train.pull.end": {"kind": "float", "low": 1e-2, "high": 10, "log": True},
    },
}


@pytest.mark.parametrize(
    ("document", "pointer", "message"),
    [
        (KERNELS | {"space": {"model.kernel": {"kind": "int", "low": 3, "high": 5}}}, "/space/model.kernel", "got 4"),
        (PULLS, "/space/train.pull.end", "need end > start where kind is adaptive"),
        (
            KERNELS
            | {
                "space": {"model.kernel": {"kind": "int", "low": 3, "high": 5}},
                "search": {"enqueue": [{"model.kernel": 5}, {"model.kernel": 4}]},
            },
            "/search/enqueue/1",
            "model.kernel: need an odd number, got 4",
        ),
    ],
)
def test_rules_that_no_corner_breaks_are_found_inside(document: Any, pointer: str, message: str) -> None:
    """A rule that holds at both ends of a range, or that three settings break together, and points to try first."""
    assert message in inside(document)[pointer]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_default_spaces_are_legal_inside(family: str) -> None:
    """As far as looks tell."""
    data = {"pose_net": "synthetic_scene", "panoptic_fpn": "scenes"}.get(family, "pathfinder")
    assert inside({"name": "first", "family": family, "data": {"name": data}}) == {}


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
