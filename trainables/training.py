"""The training loop of every family: one epoch at a time, resumable exactly, unaware of who runs it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from trainables.batches import Batches
from trainables.data.dataset import Dataset
from trainables.trial import TrainConfig, TrialConfig

EVALUATION_BATCH = 256
ORDER, LAYERS = 0, 1  # streams of random numbers: the data's order; what layers draw (initial weights, dropout)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """All that continues a training exactly; tensors are on the CPU and shared with nobody."""

    step: int
    metrics: Mapping[str, float]
    best_step: int | None
    best_metrics: Mapping[str, float]
    weights: Mapping[str, Tensor]
    """The module's state dict."""
    optimizer: Mapping[str, Tensor]
    """By `<number of the parameter>.<name>`, as in `3.exp_avg`."""
    best_weights: Mapping[str, Tensor]
    """The module's state dict at `best_step`; empty while there is none."""


@final
class Training:
    """One trial's training.

    Every random number follows from the trial's seed and the epoch's number, so an epoch does not depend on what ran
    before it in the process, and continuing needs no state of generators or loaders.

    Args:
        config: the trial; its model is built and initialised here.
        dataset: the data that `config.data` describes, loaded.
        device: where to train. The number of CPU threads is the caller's business.

    Raises:
        ValueError: the model cannot take the dataset's images.
    """

    def __init__(self, config: TrialConfig, dataset: Dataset, *, device: torch.device) -> None:
        self.config, self.dataset, self.device = config, dataset, device
        self.step = 0
        """Epochs done."""
        self.metrics: Mapping[str, float] = {}
        """Of the newest epoch; empty before the first."""
        self.best_step: int | None = None
        """The epoch whose weights are kept; None until one has been measured."""
        self.best_metrics: Mapping[str, float] = {}
        self.best_weights: Mapping[str, Tensor] = {}
        self._train, self._validation = Batches(dataset.train, device), Batches(dataset.validation, device)
        with _seeded(config.train.seed, 0, device):
            model = config.model.build(input_shape=dataset.preprocessing.input_shape, outputs=dataset.task.outputs)
        self.model = model.to(device)
        self.optimizer = _optimizer(config.train, [p for p in self.model.parameters() if p.requires_grad])

    @property
    def diverged(self) -> bool:
        """The newest epoch's training or validation loss is not finite."""
        return self._broken_loss is not None

    @property
    def finished(self) -> str | None:
        """Why there is nothing more to train, or None."""
        train = self.config.train
        if self._broken_loss is not None:
            return f"diverged: {self._broken_loss} is {self.metrics[self._broken_loss]} at step {self.step}"
        if train.patience is not None and self.step - (self.best_step or 0) >= train.patience:
            return f"no better {train.monitor} for {train.patience} epochs"
        return "max_epochs reached" if self.step >= train.max_epochs else None

    def epoch(self) -> dict[str, float]:
        """Trains one epoch, validates and keeps the weights if they are the best so far.

        A last partial batch is left out (batch norm cannot learn from a single image); the order differs by epoch, so
        no image is left out for good.

        Returns:
            `train/loss`, `train/accuracy` (while the weights moved), `validation/...`, `learning_rate`, `seconds`,
            `images_per_second` (training alone) and, in the last epoch, `test/...` of the best weights. NaN and
            infinities are values like others; they finish the training.
        """
        ended = self.finished
        assert ended is None, f"training has finished: {ended}"
        started = time.perf_counter()
        self.step += 1
        with _seeded(self.config.train.seed, self.step, self.device):
            metrics, images = self._train_epoch()
        trained = time.perf_counter()
        metrics |= self._evaluate("validation", self._validation, self.model.state_dict())
        metrics["learning_rate"] = self.config.train.learning_rate
        metrics["images_per_second"] = images / (trained - started)
        self.metrics = metrics
        if self._is_best():
            self.best_step, self.best_metrics = self.step, dict(metrics)
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.finished is not None and self.best_step is not None:
            tested = self._evaluate("test", Batches(self.dataset.test, self.device), self.best_weights)
            metrics |= tested
            self.best_metrics = {**self.best_metrics, **tested}
        metrics["seconds"] = time.perf_counter() - started
        return metrics

    def state(self) -> TrainingState:
        """A copy of all that `restore` needs."""
        moments = self.optimizer.state_dict()["state"]
        return TrainingState(
            step=self.step,
            metrics=dict(self.metrics),
            best_step=self.best_step,
            best_metrics=dict(self.best_metrics),
            weights={name: _copy(value) for name, value in self.model.state_dict().items()},
            optimizer={
                f"{number}.{name}": _copy(value)
                for number, of_one in moments.items()
                for name, value in of_one.items()
                if isinstance(value, Tensor)
            },
            best_weights={name: _copy(value) for name, value in self.best_weights.items()},
        )

    def restore(self, state: TrainingState) -> None:
        """Goes on from there: the next epoch is the one that the saved training would have run.

        Raises:
            RuntimeError: the weights are not those of this trial's model.
        """
        self.step, self.metrics = state.step, dict(state.metrics)
        self.best_step, self.best_metrics = state.best_step, dict(state.best_metrics)
        self.best_weights = {name: value.to(self.device) for name, value in state.best_weights.items()}
        self.model.load_state_dict(dict(state.weights))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.optimizer.items():
            number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    @property
    def _broken_loss(self) -> str | None:
        losses = ("train/loss", "validation/loss")
        return next((name for name in losses if not math.isfinite(self.metrics.get(name, 0.0))), None)

    def _train_epoch(self) -> tuple[dict[str, float], int]:
        task, train = self.dataset.task, self.config.train
        generator = torch.Generator().manual_seed(_derive(train.seed, self.step, ORDER))
        order = torch.randperm(len(self._train), generator=generator)
        size = min(train.batch_size, len(order))
        images_used = len(order) // size * size
        means = _Means()
        self.model.train()
        for start in range(0, images_used, size):
            images, targets = self._train.gather(order[start : start + size])
            outputs = self.model(self.dataset.preprocessing.normalize(images))
            self.optimizer.zero_grad()
            task.loss(outputs, targets).backward()  # type: ignore[no-untyped-call]  # torch's own
            self.optimizer.step()
            means.add(task.metrics(outputs.detach(), targets), size)
        return means.read("train"), images_used

    @torch.inference_mode()
    def _evaluate(self, name: str, split: Batches, weights: Mapping[str, Tensor]) -> dict[str, float]:
        means = _Means()
        self.model.eval()
        for start in range(0, len(split), EVALUATION_BATCH):
            images, targets = split.gather(torch.arange(start, min(start + EVALUATION_BATCH, len(split))))
            outputs = functional_call(self.model, dict(weights), (self.dataset.preprocessing.normalize(images),))
            means.add(self.dataset.task.metrics(outputs, targets), len(targets))
        return means.read(name)

    def _is_best(self) -> bool:
        monitor = self.config.train.monitor
        sign = -1 if monitor == "validation/loss" else 1
        value = sign * self.metrics[monitor]
        if self.diverged:
            return False
        return self.best_step is None or value > sign * self.best_metrics[monitor]


@final
class _Means:
    """Means over images, summed on the device: reading them at the end is the only wait for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    def add(self, metrics: Mapping[str, Tensor], images: int) -> None:
        for name, mean in metrics.items():
            total = mean.double() * images
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._images += images

    def read(self, split: str) -> dict[str, float]:
        return {f"{split}/{name}": float(total) / self._images for name, total in self._sums.items()}


def _optimizer(config: TrainConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )


def _derive(seed: int, step: int, stream: int) -> int:
    """64 random bits for one use in one step; unrelated for any two uses."""
    return int(np.random.SeedSequence(seed, spawn_key=(step, stream)).generate_state(1, np.uint64)[0])


@contextmanager
def _seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators seeded for what layers draw, and put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_derive(seed, step, LAYERS))
        yield


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
