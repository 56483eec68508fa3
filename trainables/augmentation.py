"""Random changes of training images, on the device that trains."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.tasks import Task

Flips = Literal["none", "horizontal", "vertical", "both"]
_AXES = {"none": (), "horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


def flip(
    images: Tensor, targets: Tensor, flips: Flips, *, task: Task, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images `[n, c, h, w]`, each mirrored along each of the axes with probability 1/2, and their targets.

    The generator is one of the CPU, so that every device flips the same images.
    """
    for axis in _AXES[flips]:
        chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(axis), images)
        targets = task.mirror(targets, chosen, axis)
    return images, targets
