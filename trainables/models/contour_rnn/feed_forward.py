"""The feed-forward control of the C-RBP paper: six large convolutions in the place of the recurrent circuit."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from trainables.fixed_point import Step
from trainables.models.contour_rnn.horizontal import form_of
from trainables.models.contour_rnn.normalization import Statistics, StepNorm
from trainables.same_convolution import AnyForm, same_convolution

LAYERS = 6


@final
class FeedForward(nn.Module):
    """Convolutions, each with batch norm and rectified; a map that knows its fixed point after one step."""

    def __init__(self, channels: int, kernel: int, *, statistics: Statistics, form: AnyForm) -> None:
        super().__init__()
        self.form = form
        weights = [nn.init.kaiming_uniform_(torch.empty(channels, channels, kernel, kernel)) for _ in range(LAYERS)]
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(torch.zeros(channels, 1, 1) for _ in range(LAYERS))
        self.norms = nn.ModuleList(StepNorm(channels, 1, statistics=statistics) for _ in range(LAYERS))

    def start(self, drive: Tensor) -> Tensor:
        """A state that is not looked at."""
        return torch.zeros_like(drive)

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`."""
        form = form_of(self.form, self.weights[0].shape[-1], drive)

        def advance(state: Tensor, t: int) -> Tensor:  # noqa: ARG001 - one step, whatever the state
            maps = drive
            for weight, bias, norm in zip(self.weights, self.biases, self.norms, strict=True):
                maps = same_convolution(weight, maps.shape[2], maps.shape[3], form)(maps) + bias
                maps = torch.relu(norm(maps, 0))
            return maps.float()

        return advance

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state: all of it."""
        return state
