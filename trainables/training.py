"""The training loop of every family: one step at a time, resumable exactly, unaware of who runs it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torch.func import functional_call

from trainables import cost
from trainables.augmentation import flip
from trainables.batches import Batches
from trainables.budget import Budget
from trainables.convolutions import channels_last_is_safe
from trainables.data.dataset import Dataset
from trainables.initial_weights import load_initial_weights
from trainables.means import Means
from trainables.optimizers import build_optimizer, set_learning_rates
from trainables.precision import uses_bfloat16
from trainables.randomness import Stream, generator, layers_seeded
from trainables.training_state import TrainingState, copies, laid_out_as, optimizer_tensors, restore_optimizer
from trainables.trial import TrialConfig

EVALUATION_BATCH = 256
CHECK_EVERY = 50  # iterations between looks at the loss, each of which waits for a GPU
VOLATILE = frozenset(
    {
        "seconds",
        "seconds_per_epoch",
        "images_per_second",
        "validation/images_per_second",
        "test/images_per_second",
        "peak_memory",
    }
)
"""The metrics that equal trainings do not share."""


@final
class Training:
    """One trial's training.

    Every random number follows from the trial's seed and a place in the training, so a step does not depend on what
    ran before it in the process, and continuing needs no state of generators or loaders.

    Args:
        config: the trial; its model is built and initialised here.
        dataset: the data that `config.data` describes, loaded.
        device: where to train. The number of CPU threads is the caller's business.

    Raises:
        ValueError: the model cannot take the dataset's images, or has no module that `train.learning_rates` names.
    """

    def __init__(self, config: TrialConfig, dataset: Dataset, *, device: torch.device) -> None:
        self.config, self.dataset, self.device = config, dataset, device
        self.budget = Budget.of(config.train, len(dataset.train))
        self.step = 0
        """Steps done: epochs, or stretches of `train.validate_every` iterations."""
        self.history: dict[int, Mapping[str, float]] = {}
        """The metrics of each step that was done."""
        self.best_step: int | None = None
        """The step whose weights are kept; None until one has been measured."""
        self.best_metrics: Mapping[str, float] = {}
        self.best_weights: Mapping[str, Tensor] = {}
        cost.reset_peak_memory(device)
        self._train, self._validation = Batches(dataset.train, device), Batches(dataset.validation, device)
        input_shape = dataset.preprocessing.input_shape
        with layers_seeded(config.train.seed, 0, device):
            model = config.model.build(input_shape=input_shape, outputs=dataset.task.outputs)
        survey = cost.survey(model, input_shape)
        safe = device.type != "cpu" or channels_last_is_safe(survey.convolutions)
        self._layout = torch.channels_last if safe else torch.contiguous_format
        self._bfloat16 = uses_bfloat16(config.train.precision, device, survey.convolutions)
        self._cost = {
            "model/parameters": float(cost.parameters(model)),
            "model/multiply_adds": float(survey.multiply_adds),
        }
        self.model = model.to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(config.train, self.model)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the newest step; empty before the first."""
        return self.history.get(self.step, {})

    @property
    def diverged(self) -> bool:
        """The newest step's training or validation loss is not finite."""
        return self._broken_loss is not None

    @property
    def finished(self) -> str | None:
        """Why there is nothing more to train, or None."""
        train = self.config.train
        if self._broken_loss is not None:
            return f"diverged: {self._broken_loss} is {self.metrics[self._broken_loss]} at step {self.step}"
        if train.patience is not None and self.step - (self.best_step or 0) >= train.patience:
            steps = "epochs" if train.validate_every is None else "steps"
            return f"no better {train.monitor} for {train.patience} {steps}"
        limit = "max_epochs" if train.max_iterations is None else "max_iterations"
        return f"{limit} reached" if self.step >= self.budget.steps else None

    def advance(self) -> dict[str, float]:
        """Trains one step, validates in float32 and keeps the weights if they are the best so far.

        Returns:
            `train/loss`, `train/accuracy` (while the weights moved), `validation/...`, `learning_rate`, `iteration`,
            `seconds` (of the step), `seconds_per_epoch`, `images_per_second` (both of training alone),
            `validation/images_per_second` (forward passes), `peak_memory` in bytes, `model/parameters`,
            `model/multiply_adds` (an image) and, in the last step, `test/...` of the best weights. NaN and infinities
            are values like others; they finish the training.

        Raises:
            ValueError: `train.initial_weights` are not there or not those of this model (in the first step).
        """
        ended = self.finished
        assert ended is None, f"training has finished: {ended}"
        if self.step == 0 and self.config.train.initial_weights is not None:
            load_initial_weights(self.model, Path(self.config.train.initial_weights))
        started = time.perf_counter()
        self.step += 1
        with layers_seeded(self.config.train.seed, self.step, self.device):
            metrics = self._train_step()
        metrics |= self._evaluate("validation", self._validation, self.model.state_dict())
        self.history[self.step] = metrics = {**metrics, **self._cost}
        if self._is_best():
            self.best_step, self.best_metrics = self.step, dict(metrics)
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.finished is not None and self.best_step is not None:
            tested = self._evaluate("test", Batches(self.dataset.test, self.device), self.best_weights)
            metrics |= tested
            self.best_metrics = {**self.best_metrics, **tested}
        metrics["seconds"] = time.perf_counter() - started
        metrics["peak_memory"] = float(cost.peak_memory(self.device))
        return metrics

    def state(self) -> TrainingState:
        """A copy of all that `restore` needs."""
        return TrainingState(
            trial=self.config.to_dict(),
            step=self.step,
            history={step: dict(metrics) for step, metrics in self.history.items()},
            best_step=self.best_step,
            best_metrics=dict(self.best_metrics),
            weights=copies(self.model.state_dict()),
            optimizer=optimizer_tensors(self.optimizer),
            best_weights=copies(self.best_weights),
        )

    def restore(self, state: TrainingState) -> None:
        """Goes on from there: the next step is the one that the saved training would have run.

        Raises:
            RuntimeError: the weights are not those of this trial's model.
        """
        self.step = state.step
        self.history = {step: dict(metrics) for step, metrics in state.history.items()}
        self.best_step, self.best_metrics = state.best_step, dict(state.best_metrics)
        self.model.load_state_dict(dict(state.weights))
        like = self.model.state_dict()
        self.best_weights = {name: laid_out_as(like[name], value) for name, value in state.best_weights.items()}
        restore_optimizer(self.optimizer, state.optimizer)

    @property
    def _broken_loss(self) -> str | None:
        losses = ("train/loss", "validation/loss")
        return next((name for name in losses if not math.isfinite(self.metrics.get(name, 0.0))), None)

    def _train_step(self) -> dict[str, float]:
        started = time.perf_counter()
        train, task, budget = self.config.train, self.dataset.task, self.budget
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        iterations = budget.iterations_of(self.step)
        multiplier, done = 1.0, 0
        means = Means()
        self.model.train()
        for iteration, (images, targets) in zip(iterations, self._batches(iterations), strict=True):
            multiplier = train.schedule.multiplier(iteration, budget.iterations)
            set_learning_rates(self.optimizer, multiplier)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
                outputs = self.model(self._inputs(images)).float()
            self.optimizer.zero_grad()
            task.loss(outputs, targets).backward()  # type: ignore[no-untyped-call]  # torch's own
            if train.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
            self.optimizer.step()
            means.add(task.metrics(outputs.detach(), targets), budget.batch)
            done += 1
            if done % CHECK_EVERY == 0 and not means.is_finite("loss"):
                break
        metrics = means.read("train")
        speed = done * budget.batch / (time.perf_counter() - started)
        return metrics | {
            "learning_rate": train.learning_rate * multiplier,
            "iteration": float(iterations.start + done),
            "images_per_second": speed,
            "seconds_per_epoch": budget.per_epoch * budget.batch / speed,
        }

    def _batches(self, iterations: range) -> Iterator[tuple[Tensor, Tensor]]:
        train, budget = self.config.train, self.budget
        flips = generator(train.seed, self.step, Stream.AUGMENTATION)
        order: Tensor | None = None
        for iteration in iterations:
            epoch, place = divmod(iteration, budget.per_epoch)
            if order is None or place == 0:
                shuffle = generator(train.seed, epoch, Stream.ORDER)
                order = torch.randperm(len(self._train), generator=shuffle).to(self.device)
            images, targets = self._train.gather(order[place * budget.batch : (place + 1) * budget.batch])
            yield flip(images, train.flips, flips), targets

    def _inputs(self, images: Tensor) -> Tensor:
        return self.dataset.preprocessing.normalize(images).contiguous(memory_format=self._layout)

    @torch.inference_mode()
    def _evaluate(self, name: str, split: Batches, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """In float32 whatever the precision of training is: the served model answers in float32."""
        started = time.perf_counter()
        means = Means()
        self.model.eval()
        for start in range(0, len(split), EVALUATION_BATCH):
            stop = min(start + EVALUATION_BATCH, len(split))
            images, targets = split.gather(torch.arange(start, stop, device=self.device))
            outputs = functional_call(self.model, dict(weights), (self._inputs(images),))
            means.add(self.dataset.task.metrics(outputs, targets), len(targets))
        metrics = means.read(name)
        return metrics | {f"{name}/images_per_second": len(split) / (time.perf_counter() - started)}

    def _is_best(self) -> bool:
        monitor = self.config.train.monitor
        sign = -1 if monitor == "validation/loss" else 1
        if self.diverged:
            return False
        return self.best_step is None or sign * self.metrics[monitor] > sign * self.best_metrics[monitor]
