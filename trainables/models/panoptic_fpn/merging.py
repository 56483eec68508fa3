"""One map of things and stuff: the heuristics of Kirillov et al., "Panoptic segmentation" (2019), section 5."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.models.panoptic_fpn.box_head import Detections
from trainables.models.panoptic_fpn.roi_align import pasted

HIDDEN = 0.5
"""A thing of which surer ones cover more than this share is left out."""


def merged(found: Detections, masks: Tensor, stuff: Tensor, things: int, least: float) -> Tensor:
    """Category (-1: none) and instance of each pixel, `[2, h, w]`: things first, the surest in front; stuff elsewhere.

    Args:
        found: the surest first; they become instances 1, 2, ... .
        masks: of each, a square of probabilities in its box, `[k, s, s]`.
        stuff: logits of every pixel, `[1 + stuff, h, w]`.
        things: how many categories are things.
        least: stuff that covers a smaller share of the image is left out.
    """
    height, width = stuff.shape[1:]
    category = torch.full((height, width), -1, device=stuff.device)
    instance = torch.zeros_like(category)
    count = 0
    for box, kind, mask in zip(found.boxes, found.classes, masks, strict=True):
        covered = pasted(mask, box, height, width) >= 0.5
        free = covered & (category < 0)
        area, visible = int(covered.sum()), int(free.sum())
        if area == 0 or area - visible > HIDDEN * area:
            continue
        count += 1
        category = torch.where(free, kind, category)
        instance = torch.where(free, count, instance)
    labels = stuff.argmax(dim=0)
    for label in torch.unique(labels).tolist():
        free = (labels == label) & (category < 0)
        if label > 0 and int(free.sum()) >= max(1.0, least * height * width):
            category = torch.where(free, things + label - 1, category)
    return torch.stack([category, instance]).float()
