"""What is in a proposal, and where exactly: Girshick, "Fast R-CNN" (2015), with two layers as on pyramids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models.panoptic_fpn.boxes import clip, decode, encode, suppress

SIDE = 7
"""Rows and columns of what is read of a proposal."""
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
MEET = 0.5
"""Boxes of one class that overlap more are one thing."""


@final
@dataclass(frozen=True, slots=True)
class Detections:
    """The things of one image, the surest first."""

    boxes: Tensor
    """`[k, 4]`."""
    classes: Tensor
    """`[k]`."""
    scores: Tensor
    """Probabilities `[k]`."""


@final
class BoxHead(nn.Module):
    """Class logits `[k, things + 1]`, the last of no thing, and deltas `[k, things, 4]` of regions."""

    def __init__(self, channels: int, hidden: int, things: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * SIDE**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.classes, self.deltas = nn.Linear(hidden, things + 1), nn.Linear(hidden, 4 * things)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Of regions `[k, channels, 7, 7]`."""
        features = self.layers(regions)
        return self.classes(features).float(), self.deltas(features).float().unflatten(1, (-1, 4))


def box_losses(logits: Tensor, deltas: Tensor, proposals: Tensor, classes: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of classes, and absolute errors of the right class's deltas; means over proposals.

    Args:
        logits: `[k, things + 1]`.
        deltas: `[k, things, 4]`.
        proposals: `[k, 4]`.
        classes: true ones `[k]`; `things`: none.
        boxes: true ones `[k, 4]`, where there is a class.
    """
    things = torch.nonzero(classes < deltas.shape[1])[:, 0]
    true = encode(boxes[things], proposals[things], WEIGHTS)
    errors = (deltas[things, classes[things]] - true).abs().sum()
    return {"classes": functional.cross_entropy(logits, classes), "boxes": errors / len(classes)}


def detect(
    logits: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int], least: float, most: int
) -> Detections:
    """The things of one image, of what was said of its proposals.

    Args:
        logits: `[k, things + 1]`.
        deltas: `[k, things, 4]`.
        proposals: `[k, 4]`.
        size: rows and columns of the image.
        least: the smallest probability.
        most: things.
    """
    scores = logits.softmax(dim=1)[:, :-1]
    at, classes = torch.nonzero(scores >= least, as_tuple=True)
    boxes = clip(decode(deltas[at, classes], proposals[at], WEIGHTS), *size)
    sure = scores[at, classes]
    kept = [at.new_zeros(0)]
    for thing in torch.unique(classes):
        own = torch.nonzero(classes == thing)[:, 0]
        kept.append(own[suppress(boxes[own], sure[own], MEET)])
    chosen = torch.cat(kept)
    chosen = chosen[sure[chosen].argsort(descending=True, stable=True)[:most]]
    return Detections(boxes[chosen], classes[chosen], sure[chosen])


def with_objects(proposals: Sequence[Tensor], objects: Sequence[Tensor]) -> list[Tensor]:
    """Each image's proposals and its true boxes, so that there is something to learn from the start."""
    return [torch.cat([some, true]) for some, true in zip(proposals, objects, strict=True)]
