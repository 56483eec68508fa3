"""The training loop of every family: one step at a time, resumable exactly, unaware of who runs it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables import cost
from trainables.augmentation import cut, flip
from trainables.batches import Batches
from trainables.budget import Budget
from trainables.compiled import compile_network, eagerly
from trainables.convolutions import channels_last_is_safe
from trainables.data.dataset import Dataset
from trainables.family import Diverged, FamilyConfig
from trainables.gradients import Gradients
from trainables.initial_weights import load_initial_weights
from trainables.measured import Measured
from trainables.optimizers import build_optimizer, set_learning_rates
from trainables.precision import float32_products, uses_bfloat16
from trainables.randomness import Stream, generator, layers_seeded
from trainables.reported import VOLATILE
from trainables.tasks import METRICS
from trainables.training_state import TrainingState, copies, laid_out_as, optimizer_tensors, restore_optimizer
from trainables.trial import TrialConfig

EVALUATION_BATCH = 256
EVALUATION_BYTES = 2**29  # of its normalised inputs, at most
CHECK_EVERY = 50  # iterations between looks at the loss, each of which waits for a GPU
GATHERED_BYTES = 2**24  # of normalised inputs, at most


@final
class Training:
    """One trial's training.

    Every random number follows from the trial's seed and a place in the training, so a step does not depend on what
    ran before it in the process, and continuing needs no state of generators or loaders.

    Args:
        config: the trial; its model is built and initialised here.
        dataset: the data that `config.data` describes, loaded.
        device: where to train. The number of CPU threads is the caller's business.
        initial_weights: where the weights are that `train.initial_weights` names; only the first step reads them.

    Raises:
        ValueError: the model cannot take the dataset's images, or has no module that `train.learning_rates` names; or
            the device has not what `train.precision` or `train.compile` ask for.
    """

    def __init__(
        self, config: TrialConfig, dataset: Dataset, *, device: torch.device, initial_weights: Path | None = None
    ) -> None:
        self.config, self.dataset, self.device = config, dataset, device
        self._initial_weights = initial_weights
        self.budget = Budget.of(config.train, len(dataset.train))
        self.step = 0
        """Steps done: epochs, or stretches of `train.validate_every` iterations."""
        self.history: dict[int, Mapping[str, float]] = {}
        """The metrics of each step that was done."""
        self._divergence: str | None = None
        self.best_step: int | None = None
        """The step whose weights are kept; None until one has been measured."""
        self.best_metrics: Mapping[str, float] = {}
        self.best_weights: Mapping[str, Tensor] = {}
        self.lineage: Sequence[Mapping[str, Any]] = ()
        """Where the weights come from: `TrainingState.lineage`."""
        self.kept: FamilyConfig = config.model
        """The config of the module whose weights are kept; another one than the trial's once the family finished it."""
        self.monitor = config.train.monitor or f"validation/{next(iter(dataset.task.METRICS))}"
        """The metric that tells the best step."""
        cost.reset_peak_memory(device)
        self._train, self._validation = Batches(dataset.train, device), Batches(dataset.validation, device)
        input_shape = dataset.preprocessing.input_shape
        with layers_seeded(config.train.seed, 0, device):
            model = config.model.build(input_shape=input_shape, outputs=dataset.task.outputs)
        survey = cost.survey(model, input_shape)
        safe = device.type != "cpu" or channels_last_is_safe(survey.convolutions)
        self._layout = torch.channels_last if safe else torch.contiguous_format
        self._bfloat16 = uses_bfloat16(config.train.precision, device, survey.convolutions)
        # Where batches are small, the loop around them costs more than what they hold: these are taken together.
        small = 4 * self.budget.batch * math.prod(input_shape) * CHECK_EVERY <= GATHERED_BYTES
        self._together = CHECK_EVERY if small else 1
        self._cost = {
            "model/parameters": float(cost.parameters(model)),
            "model/multiply_adds": float(survey.multiply_adds),
        }
        self.model = model.to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(config.train, self.model)
        compile_network(self.model, config.train.compile, device)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the newest step; empty before the first."""
        return self.history.get(self.step, {})

    @property
    def diverged(self) -> bool:
        """The newest step's training or validation loss is not finite, or the family gave up."""
        return self._divergence is not None or self._broken_loss is not None

    @property
    def finished(self) -> str | None:
        """Why there is nothing more to train, or None."""
        train = self.config.train
        if self._divergence is not None:
            return f"diverged: {self._divergence}"
        if self._broken_loss is not None:
            return f"diverged: {self._broken_loss} is {self.metrics[self._broken_loss]} at step {self.step}"
        if self.step >= self.budget.steps:
            return "max_epochs reached" if train.max_iterations is None else "max_iterations reached"
        done = self.kept != self.config.model  # the best step is then the last one
        if train.patience is not None and (done or self.step - (self.best_step or 0) >= train.patience):
            steps = "epochs" if train.validate_every is None else "steps"
            return f"no better {self.monitor} for {train.patience} {steps}"
        return None

    def advance(self) -> dict[str, float]:
        """Trains one step, validates in float32 and keeps the weights if they are the best so far (or the newest).

        Returns:
            `train/...` (while the weights moved) and `validation/...` as the task measures them, what
            `reported.REPORTED` lists and, in the last step, `test/...` of the kept weights and, where the family
            finished the model, `finished/...`: the validation and the size of what became of it. With
            `train.diagnostics`, `gradient/...` (see `Gradients`). What else a family measures has names of its own.
            NaN and infinities are values like others; they finish the training.

        Raises:
            ValueError: `train.initial_weights` are not there or not those of this model (in the first step).
        """
        ended = self.finished
        assert ended is None, f"training has finished: {ended}"
        if self.step == 0 and self.config.train.initial_weights is not None:
            if self._initial_weights is None:
                raise ValueError(f"train.initial_weights: there is no {self.config.train.initial_weights} any more")
            load_initial_weights(self.model, self._initial_weights)
        started = time.perf_counter()
        self.step += 1
        train = self.config.train
        shorter = float32_products(self.device, tfloat32=train.precision == "tfloat32")
        with layers_seeded(train.seed, self.step, self.device), shorter:
            metrics = self._train_step()
        with eagerly(train.compile), float32_products(self.device):
            metrics |= self._evaluate("validation", self._validation, self.model)
            metrics |= self.config.model.inspect(self.model, train=train, progress=self._progress)
            if "forward_seconds" not in self._cost:
                self._cost["forward_seconds"] = cost.forward_seconds(self.model, self._example())
            self.history[self.step] = metrics = {**metrics, **self._cost}
            if self._is_to_keep():
                self.best_step, self.best_metrics = self.step, dict(metrics)
                self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            if self.finished is not None and self.best_step is not None:
                metrics |= self._finish()
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
            kept=self.kept.to_dict(),
            lineage=self.lineage,
        )

    def restore(self, state: TrainingState) -> None:
        """Goes on from there: the next step is the one that the saved training would have run.

        Raises:
            RuntimeError: the weights are not those of this trial's model.
        """
        self.step, self.lineage = state.step, state.lineage
        self.history = {step: dict(metrics) for step, metrics in state.history.items()}
        self.best_step, self.best_metrics = state.best_step, dict(state.best_metrics)
        self.model.load_state_dict(dict(state.weights))
        self.kept = type(self.config.model).from_dict(state.kept)
        like = self.model.state_dict() if self.kept == self.config.model else {}
        self.best_weights = {
            name: laid_out_as(like.get(name, value), value) for name, value in state.best_weights.items()
        }
        restore_optimizer(self.optimizer, state.optimizer)

    @property
    def _broken_loss(self) -> str | None:
        losses = ("train/loss", "validation/loss")
        return next((name for name in losses if not math.isfinite(self.metrics.get(name, 0.0))), None)

    @property
    def _progress(self) -> float:
        """The share of the iterations that the steps so far have done."""
        return self.budget.iterations_of(self.step).stop / self.budget.iterations

    def _train_step(self) -> dict[str, float]:
        started = time.perf_counter()
        train, family, task, budget = self.config.train, self.config.model, self.dataset.task, self.budget
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        iterations = budget.iterations_of(self.step)
        multiplier, done = 1.0, 0
        measured = Measured()
        busy: list[float | None] = []
        gradients = Gradients(self.model) if train.diagnostics else None
        unmeasured: list[tuple[Tensor, Tensor]] = []

        def measure() -> None:
            if not unmeasured:
                return
            outputs, wanted = zip(*unmeasured, strict=True)
            measured.add(task.measure(torch.cat(outputs), torch.cat(wanted)))
            unmeasured.clear()

        self.model.train()
        for iteration, (inputs, targets) in zip(iterations, self._batches(iterations), strict=True):
            multiplier = train.schedule.multiplier(iteration, budget.iterations)
            set_learning_rates(self.optimizer, multiplier)
            progress = iteration / budget.iterations
            if train.compile == "cuda_graphs":
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch's own
            with torch.autocast(self.device.type, torch.bfloat16) if self._bfloat16 else nullcontext():
                try:
                    learned = family.training_loss(
                        self.model, inputs, targets, task=task, train=train, progress=progress
                    )
                except Diverged as error:
                    self._divergence = f"{error} (iteration {iteration + 1})"
                    break
            for parameter in parameters:
                parameter.grad = None
            learned.loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            for parameter in parameters:
                if parameter.grad is None:  # the batch had no use for it (stochastic depth), and fused SGD stumbles
                    parameter.grad = torch.zeros_like(parameter)
            if gradients is not None:
                gradients.add()
            if train.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
            self.optimizer.step()
            measured.add({}, learned.metrics)
            if learned.outputs is not None:
                outputs = learned.outputs.detach()
                # A replayed graph writes its next outputs over these.
                unmeasured.append((outputs.clone() if train.compile == "cuda_graphs" else outputs, targets))
            done += 1
            if done % self._together == 0:
                measure()
            if done % CHECK_EVERY == 0:
                busy.append(cost.gpu_utilization(self.device))
                if not measured.is_finite("loss"):
                    break
        measure()
        metrics = measured.read("train", task) if done else {}
        if gradients is not None and done:
            metrics |= gradients.read(self.history.get(self.step - 1, {}))
        if self._divergence is not None:
            metrics["train/loss"] = math.nan
        seconds = time.perf_counter() - started
        shares = [share for share in busy or [cost.gpu_utilization(self.device)] if share is not None]
        if shares:
            metrics["gpu/utilization"] = statistics.mean(shares)
        return metrics | {
            "learning_rate": train.learning_rate * multiplier,
            "iteration": float(iterations.start + done),
            "images_per_second": done * budget.batch / seconds,
            "seconds_per_epoch": budget.per_epoch * seconds / max(done, 1),
        }

    def _batches(self, iterations: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised inputs and targets, a batch at a time; several small ones are gathered together."""
        train, budget = self.config.train, self.budget
        _, height, width = self.dataset.preprocessing.input_shape
        chance = generator(train.seed, self.step, Stream.AUGMENTATION)
        iteration, order = iterations.start, torch.empty(0)
        while iteration < iterations.stop:
            epoch, place = divmod(iteration, budget.per_epoch)
            if place == 0 or iteration == iterations.start:
                shuffle = generator(train.seed, epoch, Stream.ORDER)
                order = torch.randperm(len(self._train), generator=shuffle).to(self.device)
            batches = min(self._together, budget.per_epoch - place, iterations.stop - iteration)
            images, targets = self._train.gather(order[place * budget.batch :][: batches * budget.batch])
            inputs = self._inputs(cut(images, height, width, generator=chance))
            for some, theirs in zip(torch.split(inputs, budget.batch), torch.split(targets, budget.batch), strict=True):
                flipped, wanted = flip(some, theirs, train.flips, task=self.dataset.task, generator=chance)
                yield flipped.contiguous(memory_format=self._layout), wanted
            iteration += batches

    def _inputs(self, images: Tensor) -> Tensor:
        return self.dataset.preprocessing.normalize(images).contiguous(memory_format=self._layout)

    def _example(self) -> Tensor:
        """One black image as the network takes it."""
        images = torch.zeros(1, *self.dataset.preprocessing.input_shape, dtype=torch.uint8, device=self.device)
        return self._inputs(images)

    def _finish(self) -> dict[str, float]:
        """Settles which weights are kept, tests them, and says what was measured."""
        test = Batches(self.dataset.test, self.device)
        finished = None if self.diverged else self.config.model.finish(self.model)
        if finished is None:
            tested = self._evaluate("test", test, self.model, self.best_weights)
            self.best_metrics = {**self.best_metrics, **tested}
            return tested
        self.kept, module = finished
        self.best_step = self.step
        self.best_weights = {name: value.clone() for name, value in module.state_dict().items()}
        validated = self._evaluate("validation", self._validation, module)
        tested = self._evaluate("test", test, module)
        size = float(cost.parameters(module))
        self.best_metrics = {**self.metrics, **validated, **tested, "model/parameters": size}
        told = {name.removeprefix("validation/"): value for name, value in validated.items() if name not in VOLATILE}
        told["parameters"] = size
        return tested | {f"finished/{name}": value for name, value in told.items()}

    @torch.inference_mode()
    def _evaluate(
        self, name: str, split: Batches, module: nn.Module, weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, float]:
        """In float32 whatever the precision of training is: the served model answers in float32."""
        started = time.perf_counter()
        measured = Measured()
        module.eval()
        state = dict(weights) if weights is not None else module.state_dict()
        batch = max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // (4 * math.prod(split.split.images.shape[1:]))))
        for start in range(0, len(split), batch):
            stop = min(start + batch, len(split))
            images, targets = split.gather(torch.arange(start, stop, device=self.device))
            outputs = functional_call(module, state, (self._inputs(images),))
            measured.add(self.dataset.task.measure(outputs, targets))
        metrics = measured.read(name, self.dataset.task)
        return metrics | {f"{name}/images_per_second": len(split) / (time.perf_counter() - started)}

    def _is_to_keep(self) -> bool:
        sign = -1 if METRICS[self.monitor] == "min" else 1
        if self.diverged:
            return False
        if self.config.train.keep == "last":
            return True
        return self.best_step is None or sign * self.metrics[self.monitor] > sign * self.best_metrics[self.monitor]
