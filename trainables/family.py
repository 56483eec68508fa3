"""What a model family is: a frozen config that can build its module, and say what training it takes beyond a loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, final

from torch import Tensor, nn

from trainables.config import Config
from trainables.tasks import Task
from trainables.train_config import TrainConfig


@final
class Diverged(ArithmeticError):  # noqa: N818 - what happened, not a fault of anyone
    """A training that cannot go on, and why: raised by a family, it ends the trial as diverged and nothing else."""


@final
@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """What one batch gave."""

    outputs: Tensor | None
    """The model's numbers, in float32, as its task measures them; None: training gives none, and is not measured."""
    loss: Tensor
    """The scalar whose gradient is followed."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Other scalars worth knowing, detached: reported as `train/<name>`, averaged over the step's batches.

    Where there are no outputs, the `loss` is among them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyConfig(Config):
    """Base of every family's config. It must live outside `models/`, whose files know nothing of each other.

    A family that trains like any other says only how it is built.
    """

    @property
    def tasks(self) -> frozenset[str]:
        """The kinds of tasks that the model can be asked (`TASKS`)."""
        return frozenset({"classification"})

    @property
    def trains_whole(self) -> bool:
        """Training calls the module itself: those passes are what `train.compile` translates."""
        return True

    def fitted(self, task: Task) -> Self:
        """The config with what is left to the task; by default all is said.

        Raises:
            ConfigError: it says something else than the task does.
        """
        return self

    @abstractmethod
    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> nn.Module:
        """The module, freshly initialised from torch's global random generator.

        Args:
            input_shape: (channels, rows, columns) of one input image.
            outputs: numbers a model gives an image; the task says how many it needs.

        Raises:
            ValueError: the model cannot take inputs of this shape.
        """

    def training_loss(
        self, module: nn.Module, inputs: Tensor, targets: Tensor, *, task: Task, train: TrainConfig, progress: float
    ) -> TrainingLoss:
        """What a batch teaches: by default the task's loss of the module's outputs. Called under autocast.

        Args:
            module: as `build` gave it, in training mode.
            inputs: normalised images `[n, c, h, w]`.
            targets: the task's, of these images.
            task: what the model is asked.
            train: how it is trained.
            progress: the share of all iterations that are done, from 0 to below 1.

        Raises:
            Diverged: there is nothing more to learn from.
        """
        outputs = module(inputs).float()
        return TrainingLoss(outputs, task.loss(outputs, targets))

    def inspect(self, module: nn.Module, *, train: TrainConfig, progress: float) -> Mapping[str, float]:
        """What to report of the weights after each step, by the metrics' full names; by default nothing."""
        return {}

    def finish(self, module: nn.Module) -> tuple[FamilyConfig, nn.Module] | None:
        """The model that is kept once a training has ended, in the place of its best step's; None: there is no other.

        It is measured again, saved and served under its own config, and may be smaller than what was trained.
        """
        return None
