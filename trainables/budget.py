"""How long a training is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, final

from trainables.train_config import TrainConfig


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """Counted in iterations, of one batch each; a step is what is trained between two validations."""

    batch: int
    """Images an iteration."""
    per_epoch: int
    """Iterations an epoch. A last partial batch is left out: batch norm cannot learn from a single image."""
    per_step: int
    iterations: int
    """In all."""

    @classmethod
    def of(cls, config: TrainConfig, images: int) -> Self:
        """The budget for that many training images; fewer than a batch are one batch."""
        batch = min(config.batch_size, images)
        per_epoch = images // batch
        iterations = config.max_iterations or config.max_epochs * per_epoch
        return cls(batch, per_epoch, config.validate_every or per_epoch, iterations)

    @property
    def steps(self) -> int:
        """In all; the last may be shorter."""
        return math.ceil(self.iterations / self.per_step)

    def iterations_of(self, step: int) -> range:
        """The iterations (from 0) of a step (from 1)."""
        return range((step - 1) * self.per_step, min(step * self.per_step, self.iterations))
