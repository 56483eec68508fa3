"""Gradients by layer while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from trainables.gradients import Gradients, is_truncated
from trainables.training import Training
from trainables.trial import TrialConfig


def test_norms_and_means_are_of_whole_layers() -> None:
    """A layer's weight and bias together; means and peaks over iterations, peaks also over the steps before."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    gradients = Gradients(model)
    for size in (1.0, 3.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, -size)
        model[0].bias.grad = torch.zeros(2)  # the mean is of numbers: 4 of size and 2 of zero
        gradients.add()
    told = gradients.read({"gradient/2/peak": 100.0, "gradient/0/mean_absolute/peak": 7.0})
    first, last = math.sqrt(4), math.sqrt(2 + 1)
    assert told == pytest.approx(
        {
            "gradient/0": 2 * first,
            "gradient/0/peak": 3 * first,
            "gradient/0/mean_absolute": 2 * 4 / 6,
            "gradient/0/mean_absolute/peak": 7.0,
            "gradient/2": 2 * last,
            "gradient/2/peak": 100.0,
            "gradient/2/mean_absolute": 2.0,
            "gradient/2/mean_absolute/peak": 3.0,
            "gradient/truncated": 0.0,
        }
    )


def test_a_layer_without_a_gradient_counts_as_zero() -> None:
    """Frozen parameters are left out, unused ones have norm 0."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    gradients = Gradients(model)
    model[2].weight.grad, model[2].bias.grad = torch.ones(1, 2), torch.ones(1)
    gradients.add()
    told = gradients.read({})
    assert "gradient/0" not in told
    assert told["gradient/1"] == told["gradient/1/mean_absolute"] == 0
    assert told["gradient/truncated"] == 1


@pytest.mark.parametrize(
    ("norms", "truncated"),
    [([0.0, 0.0, 1.0], True), ([1e-8, 1.0], True), ([1e-3, 1.0], False), ([0.0, 0.0], False), ([1.0], False)],
)
def test_truncated_is_when_only_the_last_layer_learns(norms: list[float], truncated: bool) -> None:
    """Gradients below it are nothing beside its own; a network that does not learn at all is not truncated."""
    assert is_truncated(norms) is truncated


def test_diagnostics_change_nothing_and_continue_exactly(make_training: Callable[..., Training]) -> None:
    """The weights are those of a training without; a restored training reports the same peaks."""
    plain, told, again = make_training(), make_training(diagnostics=True), make_training(diagnostics=True)
    for training in (plain, told):
        training.advance()
    again.restore(told.state())
    for training in (plain, told, again):
        training.advance()
    weights = [training.state().weights for training in (plain, told, again)]
    assert all(torch.equal(value, other[name]) for other in weights[1:] for name, value in weights[0].items())
    found = [{k: v for k, v in one.metrics.items() if k.startswith("gradient/")} for one in (plain, told, again)]
    assert found[0] == {}
    assert found[1] == found[2]
    assert found[1]["gradient/head"] <= found[1]["gradient/head/peak"]


@pytest.mark.parametrize(("scale", "truncated"), [(1.0, False), (1e8, True)])
def test_a_saturated_recurrent_layer_is_truncated(scale: float, truncated: bool, tmp_path: Path) -> None:
    """It passes no gradient on, as where a large learning rate has thrown it there, and its read-out learns digits."""
    trial = TrialConfig.from_dict(
        {
            "family": "spatial_rnn",
            "model": {"reshape": [8, 8], "hidden_size": 16},
            "train": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1, "batch_size": 16, "max_epochs": 6}
            | {"precision": "float32", "diagnostics": True},
            "data": {"name": "digits", "image_size": 8, "train": 500, "validation": 100, "test": 100},
        }
    )
    training = Training(trial, trial.data.load(tmp_path), device=torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in training.model.named_parameters():
            if name.startswith("rnn."):
                parameter *= scale
    while training.finished is None:
        training.advance()
    assert training.metrics["gradient/truncated"] == truncated
    assert training.metrics["train/accuracy"] > 0.25  # chance is 0.1
