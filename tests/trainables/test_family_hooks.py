"""What a family may add to the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables import checkpoint
from trainables.config import setting
from trainables.data.dataset import Dataset
from trainables.families import FAMILIES
from trainables.family import FamilyConfig, TrainingLoss
from trainables.saved_model import load_model
from trainables.tasks import Task
from trainables.train_config import TrainConfig
from trainables.training import Training
from trainables.trial import TrialConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled(FamilyConfig):
    """A linear layer whose weights are pulled to zero, ever harder, and set to zero in the end."""

    bias: bool = setting(True, help="whether the layer has a bias")

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> nn.Module:
        """One layer."""
        channels, height, width = input_shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, outputs, bias=self.bias))

    def training_loss(
        self, module: nn.Module, inputs: Tensor, targets: Tensor, *, task: Task, train: TrainConfig, progress: float
    ) -> TrainingLoss:
        """The loss and a pull that grows with progress."""
        outputs = module(inputs).float()
        pull = progress * sum(parameter.square().sum() for parameter in module.parameters())
        metrics = {"pull": pull.detach(), "progress": torch.tensor(progress)}
        return TrainingLoss(outputs, task.loss(outputs, targets) + pull, metrics)

    def inspect(self, module: nn.Module, *, train: TrainConfig, progress: float) -> Mapping[str, float]:
        """The largest weight."""
        return {"weights/largest": float(max(parameter.detach().abs().max() for parameter in module.parameters()))}

    def finish(self, module: nn.Module) -> tuple[FamilyConfig, nn.Module] | None:
        """The same layer without its bias."""
        (_, layer) = module
        smaller = nn.Linear(layer.in_features, layer.out_features, bias=False)
        smaller.weight.data.copy_(layer.weight)
        return Pulled(bias=False), nn.Sequential(nn.Flatten(), smaller)


@pytest.fixture(name="make")
def _make(
    corners: Dataset, make_trial: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Training]:
    monkeypatch.setitem(FAMILIES, "pulled", Pulled)  # type: ignore[arg-type]

    def make(**train: Any) -> Training:
        trial = make_trial(**train)
        return Training(TrialConfig("pulled", Pulled(), trial.train, trial.data), corners, device=torch.device("cpu"))

    return make


def test_a_family_may_add_to_the_loss_as_training_goes_on(make: Callable[..., Training]) -> None:
    """What it adds shrinks the weights, and what it reports is averaged over the batches of a step."""
    training = make(max_epochs=4)
    first = training.advance()
    per_epoch = training.budget.per_epoch
    assert first["train/progress"] == pytest.approx((per_epoch - 1) / 2 / (4 * per_epoch), abs=1e-6)
    for _ in range(3):
        last = training.advance()
    assert last["train/pull"] > 0
    assert last["weights/largest"] < first["weights/largest"]


def test_a_finished_model_is_measured_kept_and_saved_as_what_it_became(
    make: Callable[..., Training], corners: Dataset, tmp_path: Path
) -> None:
    """The trial's value is the finished model's; what it was before stays in the history."""
    training = make(max_epochs=2)
    training.advance()
    last = training.advance()
    assert training.best_step == 2
    assert training.kept == Pulled(bias=False)
    assert training.best_metrics["validation/accuracy"] == last["finished/accuracy"]
    assert training.best_metrics["test/accuracy"] == last["test/accuracy"]
    path = checkpoint.write(tmp_path, training)
    model = load_model(path / checkpoint.MODEL)
    assert model.config == Pulled(bias=False)
    assert [name for name, _ in model.module.named_parameters()] == ["1.weight"]
    assert model.metrics == training.best_metrics

    again = make(max_epochs=2)
    again.restore(checkpoint.read(path))
    assert again.kept == training.kept
    assert again.best_metrics == training.best_metrics
    assert all(torch.equal(value, training.best_weights[name]) for name, value in again.best_weights.items())


def test_patience_ends_a_training_whose_model_is_finished(make: Callable[..., Training], tmp_path: Path) -> None:
    """It stays ended, continued from its checkpoint too, though the best step is now the last; the model loads."""
    settings = {"learning_rate": 1e-30, "optimizer": "sgd", "patience": 2, "max_epochs": 9}
    training, again = make(**settings), make(**settings)
    while training.finished is None:
        training.advance()
    assert (training.step, training.best_step) == (3, 3)
    path = checkpoint.write(tmp_path, training)
    again.restore(checkpoint.read(path))
    assert training.finished == again.finished == "no better validation/accuracy for 2 epochs"
    assert load_model(path / checkpoint.MODEL).config == again.kept == Pulled(bias=False)


def test_a_diverged_training_is_not_finished(make: Callable[..., Training]) -> None:
    """There is nothing to make a smaller model of; the best step's weights stay."""
    training = make(max_epochs=3, learning_rate=1e-3, optimizer="sgd")
    training.advance()
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    training.advance()
    assert training.diverged
    assert training.best_step == 1
    assert training.kept == Pulled()
