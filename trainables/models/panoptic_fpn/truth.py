"""What the heads are to say of an image, read from its map of categories and instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from trainables.models.panoptic_fpn.semantic_head import IGNORED
from trainables.tasks.panoptic import instances


@final
@dataclass(frozen=True, slots=True)
class Truth:
    """Of one image."""

    boxes: Tensor
    """Of its things, `[g, 4]`."""
    classes: Tensor
    """`[g]`."""
    masks: Tensor
    """Bool `[g, h, w]`."""
    labels: Tensor
    """Of every pixel, `[h, w]`: 0 for things, 1 for the first stuff, and so on; `IGNORED`."""


def truth(target: Tensor, things: int) -> Truth:
    """Of a target `[h, w]` of the task `Panoptic`. Things that are not told apart are things to the labels alone."""
    target = target.long()
    category, number = instances(target)
    labels = torch.where(category < things, 0, category - things + 1)
    labels = torch.where(category < 0, IGNORED, labels)
    is_one = (category >= 0) & (category < things) & (number > 0)
    ids = torch.unique(target[is_one])
    masks = (target[None] == ids[:, None, None]) & is_one
    classes = instances(ids)[0]
    return Truth(_boxes(masks), classes, masks, labels)


def _boxes(masks: Tensor) -> Tensor:
    """The smallest boxes around masks `[g, h, w]`, none of them empty."""
    height, width = masks.shape[1:]
    rows, columns = masks.any(dim=2).int(), masks.any(dim=1).int()
    if len(masks) == 0:
        return torch.zeros(0, 4, device=masks.device)
    sides = [
        columns.argmax(dim=1),
        rows.argmax(dim=1),
        width - columns.flip(1).argmax(dim=1),
        height - rows.flip(1).argmax(dim=1),
    ]
    return torch.stack(sides, dim=1).float()
