"""The feature pyramid: Lin et al., "Feature pyramid networks for object detection" (2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

STRIDES = (4, 8, 16, 32, 64)
"""Pixels to a cell of each level. The last, coarsest one is for proposals only."""


@final
class Pyramid(nn.Module):
    """Maps of as many channels at every level, the finest first, each told of by all coarser ones."""

    def __init__(self, reads: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(one, channels, 1) for one in reads)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in reads)
        for convolution in (*self.lateral, *self.output):
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Five levels `[n, channels, h, w]` of the backbone's four, the finest first."""
        above, found = None, list[Tensor]()
        for read, lateral, output in zip(reversed(maps), reversed(self.lateral), reversed(self.output), strict=True):
            own: Tensor = lateral(read)
            above = own if above is None else own + functional.interpolate(above, own.shape[2:], mode="nearest")
            found.insert(0, output(above))
        return [*found, functional.max_pool2d(found[-1], 1, stride=2)]
