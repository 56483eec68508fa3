"""RoIAlign: a map's features inside a box, resampled to a square of fixed size.

He et al., "Mask R-CNN" (2017), section 3, with the half pixel that Detectron2 calls `aligned` and two samples a side of
each cell: what torchvision gives with `sampling_ratio=2, aligned=True`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SAMPLES = 2
CANONICAL, CANONICAL_LEVEL = 224, 2
"""Boxes of this side are read from this level, and others from finer and coarser ones (Lin et al. 2017, equation 1)."""


def roi_align(maps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Features `[k, c, side, side]` in boxes `[k, 4]` of maps `[c, h, w]`, whose cells are the boxes' unit."""
    channels, height, width = maps.shape
    samples = side * SAMPLES
    places = (torch.arange(samples, device=boxes.device) + 0.5) / samples
    x = 2 / width * (boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * places) - 1
    y = 2 / height * (boxes[:, 1:2] + (boxes[:, 3:] - boxes[:, 1:2]) * places) - 1
    grid = torch.stack([x[:, None].expand(-1, samples, -1), y[:, :, None].expand(-1, -1, samples)], dim=3)
    read = functional.grid_sample(
        maps[None].float(), grid.view(1, -1, samples, 2), padding_mode="border", align_corners=False
    )
    return functional.avg_pool2d(read, SAMPLES).view(channels, -1, side, side).transpose(0, 1)


def pooled(pyramid: Sequence[Tensor], strides: Sequence[int], boxes: Sequence[Tensor], side: int) -> Tensor:
    """Features `[k, c, side, side]` of all boxes, image after image, each from the level that suits its size.

    Args:
        pyramid: maps `[n, c, h, w]`, the finest first.
        strides: pixels to a cell of each.
        boxes: of each image, `[k, 4]`.
        side: of what is read.
    """
    found = []
    for image, own in enumerate(boxes):
        sides = ((own[:, 2:] - own[:, :2]).clamp(min=0).prod(dim=1)).sqrt()
        levels = (CANONICAL_LEVEL + (sides / CANONICAL + 1e-8).log2()).floor().clamp(0, len(pyramid) - 1)
        features = own.new_zeros(len(own), pyramid[0].shape[1], side, side)
        for level, (maps, stride) in enumerate(zip(pyramid, strides, strict=True)):
            chosen = torch.nonzero(levels == level)[:, 0]
            if len(chosen):
                features = features.index_copy(0, chosen, roi_align(maps[image], own[chosen] / stride, side))
        found.append(features)
    return torch.cat(found)


def pasted(mask: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """A mask `[h, w]` that fills a box, as numbers of all pixels of an image, `[height, width]`; 0 outside of it."""
    left, top, right, bottom = box.tolist()
    if not (right > left and bottom > top and math.isfinite(left + top + right + bottom)):
        return mask.new_zeros(height, width)
    x = (torch.arange(width, device=mask.device) + 0.5 - left) / (right - left) * 2 - 1
    y = (torch.arange(height, device=mask.device) + 0.5 - top) / (bottom - top) * 2 - 1
    grid = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=2)
    return functional.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
