"""A convolutional LSTM, the comparison of the C-RBP paper."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from trainables.fixed_point import Step
from trainables.models.contour_rnn.horizontal import form_of
from trainables.same_convolution import AnyForm, same_convolution


@final
class ConvLSTM(nn.Module):
    """Hidden state and memory, `[n, 2c, h, w]` together, under a drive `[n, c, h, w]`.

    Shi et al., "Convolutional LSTM network" (2015), equation 3, without its peepholes; one bias a gate.
    """

    def __init__(self, channels: int, kernel: int, *, form: AnyForm) -> None:
        super().__init__()
        self.form = form
        self.of_drive, self.of_state = (
            nn.Parameter(nn.init.orthogonal_(torch.empty(4 * channels, channels, kernel, kernel))) for _ in range(2)
        )
        self.bias = nn.Parameter(torch.zeros(4 * channels, 1, 1))

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step: zeros."""
        return torch.zeros_like(drive).repeat(1, 2, 1, 1)

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`."""
        form = form_of(self.form, self.of_drive.shape[-1], drive)
        rows, columns = drive.shape[2:]
        driven = same_convolution(self.of_drive, rows, columns, form)(drive) + self.bias
        recurrent = same_convolution(self.of_state, rows, columns, form)

        def advance(state: Tensor, t: int) -> Tensor:  # noqa: ARG001 - it does not know the step
            hidden, memory = state.chunk(2, dim=1)
            written, kept, shown, new = (driven + recurrent(hidden)).float().chunk(4, dim=1)
            memory = torch.sigmoid(kept) * memory + torch.sigmoid(written) * torch.tanh(new)
            return torch.cat([torch.sigmoid(shown) * torch.tanh(memory), memory], dim=1)

        return advance

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state: the hidden state."""
        return state.chunk(2, dim=1)[0]
