"""Batch norm in a recurrent network."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

Statistics = Literal["running", "batch"]
EPSILON = 1e-3
MOMENTUM = 0.1


@final
class StepNorm(nn.Module):
    """Batch norm whose running statistics are those of each step; its weights are shared by the steps or not.

    Steps differ in their statistics, at first by much, so one running mean for all would fit none of them (Cooijmans et
    al. 2017, section 3). Beyond the last step that training took, those of that step go on.

    Args:
        channels: of the maps.
        steps: that training takes.
        per_step: weights of its own for every step.
        bias: add one.
        weight: its initial value.
        statistics: what is used outside of training: running ones, or those of the batch as the public code has it.
    """

    def __init__(
        self,
        channels: int,
        steps: int,
        *,
        per_step: bool = False,
        bias: bool = True,
        weight: float = 1.0,
        statistics: Statistics = "running",
    ) -> None:
        super().__init__()
        kept = steps if per_step else 1
        self.weight = nn.Parameter(torch.full((kept, channels), weight))
        self.bias = nn.Parameter(torch.zeros(kept, channels)) if bias else None
        self.of_batch = statistics == "batch"
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(steps, channels))
        self.register_buffer("variance", torch.ones(steps, channels))

    def forward(self, maps: Tensor, t: int) -> Tensor:
        """Maps `[n, c, h, w]` of step t (from 0), normalised."""
        step, own = min(t, len(self.mean) - 1), min(t, len(self.weight) - 1)
        normalised: Tensor = torch.batch_norm(
            maps,
            self.weight[own],
            None if self.bias is None else self.bias[own],
            self.mean[step],
            self.variance[step],
            self.training or self.of_batch,
            MOMENTUM if self.training else 0.0,
            EPSILON,
            True,
        )
        return normalised
