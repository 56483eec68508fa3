"""Recurrent layers that sweep a feature map: the four-directional RNN.

O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps", chapter 3 and figure 3.3; before it the
pose regression of Walch et al. 2017. Axes: n maps, c channels, h rows, w columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

Unit = Literal["rnn", "gru", "lstm"]
InitialState = Literal["zeros", "normal"]
UNITS: Mapping[Unit, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """What sweeps a map, and what is kept of it."""

    unit: Unit = "lstm"
    hidden_size: int
    """Units of each direction."""
    layers: int = 1
    """Recurrent layers on top of each other; from the second on, each direction reads both directions below."""
    full_sequence: bool = False
    """Keep the hidden states of all steps, not of the last one only."""
    initial_state: InitialState = "zeros"
    """Of every sequence. `normal`: drawn anew while training; zeros when evaluating, so that equal maps read alike."""

    def kept(self, rows: int, columns: int) -> tuple[int, int]:
        """(states, numbers a state) that a four-directional sweep keeps of a map."""
        return (rows + columns, 2 * self.hidden_size) if self.full_sequence else (4, self.hidden_size)


@final
class BidirectionalRNN(nn.Module):
    """Sweeps the rows of maps `[n, c, h, w]` downwards and upwards at once; a step reads a whole row, c * w numbers."""

    def __init__(self, input_shape: tuple[int, int, int], recurrence: Recurrence) -> None:
        super().__init__()
        self.input_shape, self.recurrence = input_shape, recurrence
        channels, _, columns = input_shape
        self.unit = UNITS[recurrence.unit](
            channels * columns, recurrence.hidden_size, recurrence.layers, batch_first=True, bidirectional=True
        )

    def forward(self, maps: Tensor) -> Tensor:
        """The hidden states that are kept.

        Args:
            maps: `[n, c, h, w]`, or vectors `[n, c * h * w]` to be read as such maps.

        Returns:
            `[n, 2, hidden_size]`: after the last row (downwards) and after the first (upwards). As a full sequence
            `[n, h, 2 * hidden_size]`: at each row, both directions.
        """
        rows = maps.reshape(-1, *self.input_shape).transpose(1, 2).flatten(2)
        states, last = self.unit(rows, self._initial_state(rows))
        hidden = last[0] if self.recurrence.unit == "lstm" else last
        # The topmost layer's two directions; upwards, the last step is the first row.
        kept: Tensor = states if self.recurrence.full_sequence else hidden[-2:].transpose(0, 1)
        return kept

    def _initial_state(self, rows: Tensor) -> Tensor | tuple[Tensor, Tensor] | None:
        if self.recurrence.initial_state == "zeros" or not self.training:
            return None
        shape = (2 * self.recurrence.layers, len(rows), self.recurrence.hidden_size)
        hidden = torch.randn(shape, dtype=rows.dtype, device=rows.device)
        return (hidden, torch.randn_like(hidden)) if self.recurrence.unit == "lstm" else hidden


@final
class FourDirectionalRNN(nn.Module):
    """Sweeps maps `[n, c, h, w]` downwards, upwards, rightwards and leftwards, each with weights of its own."""

    def __init__(self, input_shape: tuple[int, int, int], recurrence: Recurrence) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels, rows, columns = input_shape
        self.rows = BidirectionalRNN((channels, rows, columns), recurrence)
        self.columns = BidirectionalRNN((channels, columns, rows), recurrence)

    def forward(self, maps: Tensor) -> Tensor:
        """The hidden states that are kept.

        Args:
            maps: `[n, c, h, w]`, or vectors `[n, c * h * w]` to be read as such maps.

        Returns:
            `[n, 4, hidden_size]`: where the sweeps downwards, upwards, rightwards and leftwards end. As a full sequence
            `[n, h + w, 2 * hidden_size]`: both vertical directions at each row, then both horizontal ones at each
            column.
        """
        maps = maps.reshape(-1, *self.input_shape)
        return torch.cat([self.rows(maps), self.columns(maps.transpose(2, 3))], dim=1)
