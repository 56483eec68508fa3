"""td+hCNN: horizontal circuits at two levels, and feedback from the upper to the lower; hCNN: the lower circuit alone.

Kim, Linsley, Thakkar and Serre, "Disentangling neural mechanisms for perceptual grouping" (2020), and its public code.
Axes: n images, c channels, h rows and w columns of the lower level (half the image's), r and s of the upper level.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import Step
from trainables.models.contour_rnn.circuit import Circuit
from trainables.models.contour_rnn.normalization import Statistics, StepNorm

CONVOLUTIONS_A_LEVEL = 3


@final
class HorizontalOnly(nn.Module):
    """hCNN: the lower level's circuit with batch norm after it; td+hCNN without all that its feedback needs."""

    def __init__(self, channels: int, kernel: int, steps: int, **circuit: Any) -> None:
        super().__init__()
        self.circuit = Circuit(channels, kernel, steps, rectified=True, one_kernel=False, **circuit)
        self.norm = _after_circuit(channels, steps, circuit)

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step: zeros."""
        return torch.zeros_like(drive)

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`."""
        inner = self.circuit.step(drive)

        def advance(state: Tensor, t: int) -> Tensor:
            normalised: Tensor = self.norm(inner(state, t), t)
            return normalised.float()

        return advance

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state: all of it."""
        return state


@final
class Feedback(nn.Module):
    """td+hCNN: state `[n, c h w + u r s]`, the lower level's feedback and the upper level's circuit (u channels), flat.

    A step: the lower circuit from the feedback; two levels of pooling and convolutions; the upper circuit (1x1
    kernels); two transposed convolutions down again; a circuit (1x1) in which that meets the lower level; and their
    mixture.
    """

    def __init__(
        self, channels: int, kernel: int, steps: int, *, tower: tuple[int, int], statistics: Statistics, **circuit: Any
    ) -> None:
        super().__init__()
        middle, upper = tower
        circuit["statistics"] = statistics
        kinds = {"rectified": True, "one_kernel": False, **circuit}
        self.lower = Circuit(channels, kernel, steps, **kinds)
        self.upper = Circuit(upper, 1, steps, **kinds)
        self.meeting = Circuit(channels, 1, steps, **kinds)
        self.lower_norm = _after_circuit(channels, steps, circuit)
        self.upper_norm = _after_circuit(upper, steps, circuit)
        self.meeting_norm = _after_circuit(channels, steps, circuit)
        per_step = circuit["normalization"] == "per_step"
        self.climb = nn.ModuleList()
        for before, after in ((channels, middle), (middle, upper)):
            for number in range(CONVOLUTIONS_A_LEVEL):
                convolution = nn.Conv2d(after if number else before, after, 3, padding=1)
                self.climb.append(_Layer(convolution, steps, per_step, statistics))
        self.descent = nn.ModuleList(
            _Layer(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), steps, per_step, statistics)
            for before, after in ((upper, middle), (middle, channels))
        )
        self.mixture = nn.Parameter(torch.zeros(()))

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step: zeros.

        Raises:
            ValueError: the lower level is smaller than 4 x 4.
        """
        if min(drive.shape[2:]) < 4:
            raise ValueError(f"td_hcnn: need images of at least 8 x 8, got maps of {tuple(drive.shape[2:])}")
        return drive.new_zeros(len(drive), math.prod(drive.shape[1:]) + math.prod(self._upper_shape(drive)))

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`."""
        inner = self.lower.step(drive)
        sizes = [math.prod(drive.shape[1:]), math.prod(self._upper_shape(drive))]

        def advance(state: Tensor, t: int) -> Tensor:
            feedback, upper = (part.contiguous() for part in torch.split(state, sizes, dim=1))
            lower = self.lower_norm(inner(feedback.view(drive.shape), t), t).float()
            maps, shapes = lower, []
            for number, layer in enumerate(self.climb):
                if number % CONVOLUTIONS_A_LEVEL == 0:
                    shapes.append(maps.shape[2:])
                    maps = functional.max_pool2d(maps, 2)
                maps = layer(maps, t)
            upper = self.upper.step(maps)(upper.view(-1, *self._upper_shape(drive)), t)
            upper = self.upper_norm(upper, t).float()
            maps = upper
            for layer, shape in zip(self.descent, reversed(shapes), strict=True):
                maps = layer(maps, t, shape)
            met = self.meeting_norm(self.meeting.step(lower)(maps.float(), t), t).float()
            mixed = torch.lerp(met, lower, torch.sigmoid(self.mixture))
            return torch.cat([mixed.flatten(1), upper.flatten(1)], dim=1)

        return advance

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state: the lower level `[n, c, h, w]`."""
        return state[:, : math.prod(drive.shape[1:])].reshape(drive.shape)

    def _upper_shape(self, drive: Tensor) -> tuple[int, int, int]:
        return self.upper.channels, drive.shape[2] // 4, drive.shape[3] // 4


@final
class _Layer(nn.Module):
    """A convolution with a bias of 1, rectified, then batch norm."""

    def __init__(
        self, convolution: nn.Conv2d | nn.ConvTranspose2d, steps: int, per_step: bool, statistics: Statistics
    ) -> None:
        super().__init__()
        self.convolution = convolution
        nn.init.xavier_uniform_(convolution.weight)
        assert convolution.bias is not None
        nn.init.ones_(convolution.bias)
        self.norm = StepNorm(convolution.out_channels, steps, per_step=per_step, statistics=statistics)

    def forward(self, maps: Tensor, t: int, size: torch.Size | None = None) -> Tensor:
        """Maps of step t; a transposed convolution gives maps of this size."""
        grown = self.convolution(maps) if size is None else self.convolution(maps, output_size=list(size))
        normalised: Tensor = self.norm(torch.relu(grown), t)
        return normalised


def _after_circuit(channels: int, steps: int, circuit: dict[str, Any]) -> StepNorm:
    per_step = circuit["normalization"] == "per_step"
    return StepNorm(channels, steps, per_step=per_step, bias=False, statistics=circuit["statistics"])
