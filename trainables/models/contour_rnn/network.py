"""A recurrent contour network whole: drive, circuit, read-out, at any number of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import Statistics, Step, iterate

PIXELS_AT_ONCE = 2**20
"""Of the images that go through the network together where no gradient is asked for; it bounds the memory."""


class Cell(Protocol):
    """A recurrent circuit. Its state may have any shape whose axis 0 is images."""

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step."""

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`, to be applied step by step."""

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state, `[n, c, h, w]` like its drive."""


@final
@dataclass(frozen=True, slots=True)
class Dynamics:
    """What some images make of a circuit: a map, and where it starts."""

    step: Step
    start: Tensor
    drive: Tensor
    size: tuple[int, int]
    """Rows and columns of the images."""


@final
class ContourRNN(nn.Module):
    """Drives a circuit with an image's features and reads out its state.

    Args:
        drive: from images to features `[n, c, h, w]`.
        cell: the circuit, a module that is a `Cell`.
        readout: from states `[n, c, h, w]` to outputs.
        steps: how many to run if a call does not say: those of training.
        tolerance: images whose state changes relatively less stay where they are; see `iterate`.
        alone: outside of training, what an image gives does not depend on the images beside it.
        layout: in which memory layout the circuit takes a drive.
    """

    def __init__(
        self,
        drive: nn.Module,
        cell: nn.Module,
        readout: nn.Module,
        *,
        steps: int,
        tolerance: float | None,
        alone: bool,
        layout: Callable[[Tensor], torch.memory_format],
    ) -> None:
        super().__init__()
        self.drive, self.cell, self.readout = drive, cell, readout
        self.steps, self.tolerance, self.alone, self.layout = steps, tolerance, alone, layout
        self.solves: list[Statistics] = []
        """Of backward solves since training last told of them."""

    def forward(self, images: Tensor, steps: int | None = None) -> Tensor:
        """Outputs `[n, outputs]` or `[n, outputs, h, w]` of images `[n, c, h, w]` after so many steps.

        Raises:
            ValueError: steps are below 1; or the call is traced, and how many steps are taken depends on the images.
        """
        count = self.steps if steps is None else steps
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch's own
        if tracing and self.tolerance is not None:
            raise ValueError(f"a graph has as many steps for all images: need no tolerance, got {self.tolerance}")
        if torch.is_grad_enabled() or not self.alone or tracing:
            return self._outputs(images, count)
        together = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
        return torch.cat([self._outputs(part, count) for part in torch.split(images, together)])

    def evolution(self, images: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """The outputs after step 1, 2, ...: how an answer, such as a mask, comes about. The last is that of `forward`.

        Where the circuit's tolerance ends a run earlier, the outputs no longer change.
        """
        dynamics = self.dynamics(images)
        for state in self.trajectory(dynamics, self.steps if steps is None else steps):
            yield self.read_out(state, dynamics)

    def trajectory(self, dynamics: Dynamics, steps: int) -> Iterator[Tensor]:
        """The states after step 1, 2, ..., as `forward` runs through them."""
        state, moving = dynamics.start, torch.ones(len(dynamics.start), dtype=torch.bool, device=dynamics.start.device)
        for t in range(steps):
            one = iterate(partial(_at, dynamics.step, t), state, 1, tolerance=self.tolerance)
            kept = moving.view(-1, *[1] * (state.dim() - 1))
            state = torch.where(kept, one.state, state)
            if self.tolerance is not None:
                moving = moving & one.moving
            yield state

    def dynamics(self, images: Tensor) -> Dynamics:
        """The map that these images give, ready to be iterated from `start`."""
        drive: Tensor = self.drive(images)
        drive = drive.contiguous(memory_format=self.layout(drive))
        cell = cast("Cell", self.cell)
        return Dynamics(cell.step(drive), cell.start(drive), drive, (images.shape[2], images.shape[3]))

    def read_out(self, state: Tensor, dynamics: Dynamics) -> Tensor:
        """The outputs of a state; those of pixels are as many as the image's, whatever the circuit's resolution."""
        outputs: Tensor = self.readout(cast("Cell", self.cell).visible(state, dynamics.drive))
        if outputs.dim() == 4 and tuple(outputs.shape[2:]) != dynamics.size:
            return functional.interpolate(outputs, dynamics.size, mode="bilinear")
        return outputs

    def _outputs(self, images: Tensor, steps: int) -> Tensor:
        dynamics = self.dynamics(images)
        found = iterate(dynamics.step, dynamics.start, steps, tolerance=self.tolerance)
        return self.read_out(found.state, dynamics)


def _at(step: Step, t: int, state: Tensor, _: int) -> Tensor:
    return step(state, t)
