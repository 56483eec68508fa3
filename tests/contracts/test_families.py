"""What every model family promises, at every corner of its default search space."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.library import default_space
from trainables.data.dataset import Dataset
from trainables.data.digits import Digits
from trainables.families import FAMILIES
from trainables.saved_model import load_model, save_model
from trainables.training import Training
from trainables.trial import TrialConfig, nest

CORNERS = [(family, corner) for family in FAMILIES for corner in default_space(family).corners()]


@pytest.fixture(name="dataset", scope="module")
def _dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Digits(train=4, validation=2, test=2).load(tmp_path_factory.mktemp("data"))


def trial_at(family: str, corner: dict[str, Any]) -> TrialConfig:
    """The trial of a corner, on digits."""
    return TrialConfig.from_dict({**nest(corner), "family": family, "data": {"name": "digits"}})


@pytest.mark.parametrize(("family", "corner"), CORNERS, ids=[json.dumps(corner) for _, corner in CORNERS])
def test_every_corner_builds_learns_and_comes_back_from_disk(
    family: str, corner: dict[str, Any], dataset: Dataset, tmp_path: Path
) -> None:
    """The config survives plain data, every trainable weight gets a finite gradient, the saved model answers alike."""
    trial = trial_at(family, corner)
    assert TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial

    preprocessing, task = dataset.preprocessing, dataset.task
    torch.manual_seed(0)
    model = trial.model.build(input_shape=preprocessing.input_shape, outputs=task.outputs)
    inputs = preprocessing.normalize(torch.from_numpy(np.array(dataset.train.images)))
    outputs = model(inputs)
    assert outputs.shape == (4, task.outputs)
    task.loss(outputs, torch.from_numpy(np.array(dataset.train.targets))).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name

    save_model(tmp_path / "model", trial=trial, dataset=dataset, weights=model.state_dict(), step=1, metrics={})
    again = load_model(tmp_path / "model")
    assert again.config == trial.model
    with torch.inference_mode():
        torch.testing.assert_close(again.module(inputs), model.eval()(inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family: str, precision: str, dataset: Dataset) -> None:
    """An iteration of the real loop, in its memory layout and in both precisions, moves every trainable tensor."""
    trial = trial_at(family, {"train.precision": precision, "train.max_iterations": 1, "train.learning_rate": 0.1})
    training = Training(trial, dataset, device=torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}
    metrics = training.advance()
    assert all(map(math.isfinite, metrics.values()))
    for name, parameter in training.model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_seeds_give_equal_weights(family: str) -> None:
    """All that initialisation draws comes from torch's global generator."""
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(FAMILIES[family]().build(input_shape=(1, 32, 32), outputs=3).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_default_space(family: str) -> None:
    """The default space searches something, and every corner of it is a legal trial."""
    corners = default_space(family).corners()
    assert corners
    for corner in corners:
        trial_at(family, corner)
