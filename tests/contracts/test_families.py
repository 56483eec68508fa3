"""What every model family promises, at every corner of its default search space."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.library import default_space
from trainables.config import ConfigError
from trainables.data.dataset import Dataset, DatasetConfig
from trainables.data.digits import Digits
from trainables.data.pathfinder import Pathfinder
from trainables.data.scenes import Scenes
from trainables.data.synthetic_scene import SyntheticScene
from trainables.families import FAMILIES
from trainables.saved_model import load_model, save_model
from trainables.tasks import TASKS
from trainables.training import Training
from trainables.trial import TrialConfig, nest

MOST_BATCHES = 20  # until every part of a model has been in one: stochastic depth leaves some out
CORNERS = [(family, corner) for family in FAMILIES for corner in default_space(family).corners()]


SMALL: Mapping[str, DatasetConfig] = {
    "classification": Digits(train=4, validation=2, test=2),
    "panoptic": Scenes(train=4, validation=2, test=2),
    "pose": SyntheticScene(image_size=80, train=4, validation=2, test=2),
    "segmentation": Pathfinder(masks=True, preset="lra_32", path_length=6, train=4, validation=2, test=2),
}
"""A small dataset of every kind of task that a family is asked."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "panoptic_fpn": {
        "model.backbone": "small",
        "model.channels": 16,
        "model.hidden": 32,
        "model.anchor": 4.0,
        "model.proposals": 20,
        "model.regions": 16,
        "model.steps": 3,
    },
}
"""What makes a family small that is too large to be tried as it comes."""


def small(family: str) -> DatasetConfig:
    """The small dataset that a family is tried on."""
    return next(SMALL[kind] for kind in SMALL if kind in FAMILIES[family]().tasks)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Four small images are slower on two threads, by far where other processes want them too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="datasets", scope="module")
def _datasets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Dataset]:
    root = tmp_path_factory.mktemp("data")
    return {family: small(family).load(root) for family in FAMILIES}


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_has_a_small_dataset(kind: str) -> None:
    """So that a family that answers no other one can be tried."""
    assert SMALL[kind].task.kind == kind


def trial_at(family: str, corner: dict[str, Any]) -> TrialConfig:
    """The trial of a corner, on the family's small dataset."""
    return TrialConfig.from_dict(
        {**nest({**SETTINGS.get(family, {}), **corner}), "family": family, "data": small(family).to_dict()}
    )


@pytest.mark.parametrize(("family", "corner"), CORNERS, ids=[json.dumps(corner) for _, corner in CORNERS])
def test_every_corner_builds_learns_and_comes_back_from_disk(
    family: str, corner: dict[str, Any], datasets: Mapping[str, Dataset], tmp_path: Path
) -> None:
    """The config survives plain data, every trainable weight gets a finite gradient, the saved model answers alike."""
    trial, dataset = trial_at(family, corner), datasets[family]
    assert TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial

    preprocessing, task = dataset.preprocessing, dataset.task
    torch.manual_seed(0)
    model = trial.model.build(input_shape=preprocessing.input_shape, outputs=task.outputs)
    inputs = preprocessing.normalize(torch.from_numpy(np.array(dataset.train.images)))
    targets = torch.from_numpy(np.array(dataset.train.targets))
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    called: list[bool] = []
    counting = model.register_forward_hook(lambda *_: called.append(True))
    for _ in range(MOST_BATCHES):
        learned = trial.model.training_loss(model, inputs, targets, task=task, train=trial.train, progress=0.0)
        if learned.outputs is not None:
            assert learned.outputs.shape == (4, task.outputs, *(targets.shape[1:] if targets.ndim == 3 else ()))
        learned.loss.backward()
        if all(parameter.grad is not None for parameter in trainable.values()):
            break
    counting.remove()
    assert bool(called) == trial.model.trains_whole
    for name, parameter in trainable.items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name

    save_model(tmp_path / "model", trial=trial, dataset=dataset, weights=model.state_dict(), step=1, metrics={})
    again = load_model(tmp_path / "model")
    assert again.config == trial.model
    model = model.eval().to(memory_format=torch.channels_last)  # as it is loaded: deep networks amplify rounding
    with torch.inference_mode():
        torch.testing.assert_close(again.module(inputs), model(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_whole_passes_are_asked_to_be_translated(family: str) -> None:
    """`train.compile` is refused where it would translate nothing."""
    if FAMILIES[family]().trains_whole:
        assert trial_at(family, {"train.compile": "on"}).train.compile == "on"
    else:
        with pytest.raises(ConfigError, match=rf"train\.compile: need off for {family}.*; got on"):
            trial_at(family, {"train.compile": "on"})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family: str, precision: str, datasets: Mapping[str, Dataset]) -> None:
    """Iterations of the real loop, in its memory layout and in both precisions, move every trainable tensor."""
    settings = {"precision": precision, "max_iterations": MOST_BATCHES, "validate_every": 1}
    trial = trial_at(family, {f"train.{name}": value for name, value in settings.items()})
    training = Training(trial, datasets[family], device=torch.device("cpu"))
    parameters = dict(training.model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    unmoved = set(parameters)
    while unmoved & {name for name in parameters if parameters[name].requires_grad} and training.finished is None:
        assert all(map(math.isfinite, training.advance().values()))
        unmoved = {name for name, parameter in parameters.items() if torch.equal(parameter, before[name])}
    assert unmoved == {name for name, parameter in parameters.items() if not parameter.requires_grad}
    assert all(torch.isfinite(parameter).all() for parameter in parameters.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_seeds_give_equal_weights(family: str) -> None:
    """All that initialisation draws comes from torch's global generator."""
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        trial = trial_at(family, {})
        input_shape, outputs = trial.data.preprocessing.input_shape, trial.data.task.outputs
        weights.append(trial.model.build(input_shape=input_shape, outputs=outputs).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_default_space(family: str) -> None:
    """The default space searches something, and every corner of it is a legal trial."""
    corners = default_space(family).corners()
    assert corners
    for corner in corners:
        trial_at(family, corner)
