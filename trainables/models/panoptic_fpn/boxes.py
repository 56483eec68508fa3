"""Boxes: `[n, 4]` of left, top, right, bottom, in pixels from the image's upper left corner."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
LARGEST = math.log(1000 / 16)
"""Of a side's growth, as a logarithm: beyond it numbers would only overflow."""


def areas(boxes: Tensor) -> Tensor:
    """`[n]`."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlaps(some: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each of `[n, 4]` with each of `[m, 4]`: `[n, m]`."""
    near = torch.maximum(some[:, None, :2], others[None, :, :2])
    far = torch.minimum(some[:, None, 2:], others[None, :, 2:])
    both = (far - near).clamp(min=0).prod(dim=2)
    either = areas(some)[:, None] + areas(others)[None] - both
    return torch.where(both > 0, both / either, torch.zeros_like(both))


def encode(boxes: Tensor, references: Tensor, weights: Weights) -> Tensor:
    """How far boxes are from references, `[n, 4]`: shifts in the references' sides, and logarithms of growths.

    Girshick et al., "Rich feature hierarchies for accurate object detection" (2014), appendix C.
    """
    centres, sides = _centres(boxes)
    their_centres, their_sides = _centres(references)
    shifts, growths = (centres - their_centres) / their_sides, (sides / their_sides).log()
    return torch.cat([shifts, growths], dim=1) * boxes.new_tensor(weights)


def decode(deltas: Tensor, references: Tensor, weights: Weights) -> Tensor:
    """The boxes that `encode` told of."""
    centres, sides = _centres(references)
    deltas = deltas / deltas.new_tensor(weights)
    middle = centres + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].clamp(max=LARGEST).exp() / 2
    return torch.cat([middle - half, middle + half], dim=1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """The parts of the boxes that are inside an image."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression: indices of boxes, best first, without those that meet a better one that is kept.

    The greedy way from box to box, done for all at once: what is kept is the only solution of "kept are those that meet
    no better one that is kept", and each pass over the table of overlaps settles at least one more box.

    Args:
        boxes: `[n, 4]`.
        scores: `[n]`.
        threshold: boxes of which more than this share overlaps meet.
    """
    order = scores.argsort(descending=True, stable=True)
    meets = overlaps(boxes[order], boxes[order]).triu(diagonal=1) > threshold
    kept = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    while True:
        still = ~(meets & kept[:, None]).any(dim=0)
        if torch.equal(still, kept):
            return order[kept]
        kept = still


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sides, `[n, 2]` each."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + sides / 2, sides
