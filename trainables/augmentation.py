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


def cut(images: Tensor, height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """A part `[n, c, height, width]` of each image `[n, c, h, w]`, at a random place; images of that size stay."""
    spare = images.shape[2] - height, images.shape[3] - width
    if spare == (0, 0):
        return images
    tops, lefts = (torch.randint(most + 1, (len(images),), generator=generator).tolist() for most in spare)
    parts = zip(images, tops, lefts, strict=True)
    return torch.stack([image[:, top : top + height, left : left + width] for image, top, left in parts])
