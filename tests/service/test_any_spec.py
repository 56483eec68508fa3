"""Whatever is sent as a spec is a spec or a list of faults, and a spec that is taken has only legal trials."""

from __future__ import annotations

import copy
import json
import operator
from functools import reduce
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import same
from service.errors import InvalidSpec
from service.spec import SweepSpec
from tests.service.spec_samples import BASE, RICH
from trainables.config import Config, Setting
from trainables.data.datasets import DATASETS
from trainables.families import FAMILIES
from trainables.train_config import TrainConfig
from trainables.trial import TrialConfig

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
    rng = Random(1)  # not the points that are looked at when it is taken
    for point in (*spec.space.corners(), *(spec.space.sample(rng) for _ in range(3))):
        spec.space.check(point)
        trial = spec.trial(point)
        assert TrialConfig.from_dict(trial.to_dict()) == trial
        nested: Any = {"model": trial.model.to_dict(), "train": trial.train.to_dict(), "data": trial.data.to_dict()}
        for name, value in {**spec.fixed, **point}.items():
            assert same(reduce(operator.getitem, name.split("."), nested), value)


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


@settings(max_examples=70)
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


def numbers(kind: type[Config], section: str) -> dict[str, Setting]:
    """The settings of a section that take numbers."""
    return {f"{section}.{name}": one for name, one in kind.settings().items() if one.number is not None}


def drawn(setting: Setting, rng: Random) -> dict[str, Any]:
    """A range within the bounds of a setting, of sizes that are used."""
    bounds = setting.bounds
    least, most = bounds.get("at_least", 0), min(bounds.get("at_most", 100), bounds.get("below", 100), 100)
    ends = sorted(rng.uniform(least, max(least, most)) for _ in range(2))
    low, high = (max(1, round(end)) if setting.number is int else end for end in ends)
    return {"kind": "int" if setting.number is int else "float", "low": low, "high": high}


DATA = {"panoptic_fpn": "scenes", "pose_net": "synthetic_scene"}
ANSWER = {
    "cambridge": "pose_net",
    "coco_panoptic": "panoptic_fpn",
    "scenes": "panoptic_fpn",
    "synthetic_scene": "pose_net",
}
OF_MODELS = [(family, DATA.get(family, "digits")) for family in FAMILIES]
OF_DATA = [(ANSWER.get(data, "narrow_resnet"), data) for data in DATASETS]


@pytest.mark.parametrize(
    ("family", "data", "section"),
    [
        *((*pair, "model") for pair in OF_MODELS),
        *((*pair, "data") for pair in OF_DATA),
        ("shared_resnet", "digits", "train"),
    ],
)
def test_a_space_of_any_numbers_is_refused_or_legal(family: str, data: str, section: str) -> None:
    """Each setting that takes numbers, beside another one: whatever rules there are, all inside is legal."""
    own = numbers({"model": FAMILIES[family], "data": DATASETS[data], "train": TrainConfig}[section], section)
    every = {**own, **numbers(TrainConfig, "train")}
    rng, taken = Random(0), 0
    for name in own:
        space = {one: drawn(every[one], rng) for one in (name, rng.choice(list(every)))}
        try:
            spec = SweepSpec.from_dict({**BASE, "family": family, "data": {"name": data}, "space": space})
        except InvalidSpec:
            continue
        if not list(spec.inner_faults()):
            taken += 1
            check_legal(spec)
    assert taken
