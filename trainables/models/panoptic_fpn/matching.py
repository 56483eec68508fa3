"""Which boxes learn which objects: Ren et al., "Faster R-CNN" (2015), section 3.1.2."""

from __future__ import annotations

import torch
from torch import Tensor

OBJECT, GROUND, UNCLEAR = 1, 0, -1


def match(overlaps: Tensor, low: float, high: float, *, each: bool) -> tuple[Tensor, Tensor]:
    """The object that each box overlaps most, `[n]`, and whether it is one: `OBJECT`, `GROUND` or `UNCLEAR`, `[n]`.

    Args:
        overlaps: of objects with boxes, `[g, n]`.
        low: boxes that overlap less are ground.
        high: those that overlap at least as much are objects.
        each: the boxes that overlap an object most are objects in any case, so that none is left out.
    """
    if len(overlaps) == 0:
        nothing = torch.zeros(overlaps.shape[1], dtype=torch.int64, device=overlaps.device)
        return nothing, nothing.clone()
    most, objects = overlaps.max(dim=0)
    labels = torch.full_like(objects, UNCLEAR)
    labels[most < low] = GROUND
    labels[most >= high] = OBJECT
    if each:
        best = overlaps.amax(dim=1, keepdim=True)
        labels[((overlaps == best) & (best > 0)).any(dim=0)] = OBJECT
    return objects, labels


def sample(labels: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Indices of up to `count` boxes at random: of objects, at most that share of them, and of ground."""
    objects, ground = (torch.nonzero(labels == label)[:, 0] for label in (OBJECT, GROUND))
    objects = _some(objects, int(count * share))
    return objects, _some(ground, count - len(objects))


def _some(indices: Tensor, count: int) -> Tensor:
    # Drawn on the CPU, so that every device draws alike.
    return indices[torch.randperm(len(indices))[:count].to(indices.device)]
