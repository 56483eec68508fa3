"""Pixels left out before a shortcut's projection: its stride, without the fault in `trainables.convolutions`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def subsampled(maps: Tensor, stride: int) -> Tensor:
    """Every `stride`-th row and column of maps `[n, c, h, w]`, the first ones among them."""
    if stride > 1 and torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch's own
        # For an engine, which has a slice in no layout but NCHW: it would bring the maps there and back.
        return functional.max_pool2d(maps, kernel_size=1, stride=stride)
    return maps[:, :, ::stride, ::stride]
