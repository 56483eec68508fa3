"""Which stuff each pixel is: Kirillov et al., "Panoptic feature pyramid networks" (2019), figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models.panoptic_fpn.backbone import group_norm

IGNORED = 255
"""The label of pixels that nobody has labelled."""


@final
class SemanticHead(nn.Module):
    """Logits `[n, 1 + stuff, h, w]` at the finest level: 0 is any thing. Coarser levels are read on their way up."""

    def __init__(self, reads: int, channels: int, stuff: int, levels: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(_tower(reads, channels, max(1, level)) for level in range(levels))
        self.predictor = nn.Conv2d(channels, 1 + stuff, 1)
        nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Of maps, the finest first."""
        merged = []
        for level, (maps, tower) in enumerate(zip(pyramid, self.towers, strict=True)):
            for up, layer in enumerate(cast("nn.ModuleList", tower)):
                maps = layer(maps)
                if level:
                    finer = pyramid[level - 1 - up].shape[2:]
                    maps = functional.interpolate(maps, finer, mode="bilinear", align_corners=False)
            merged.append(maps)
        logits: Tensor = self.predictor(torch.stack(merged).sum(dim=0))
        return logits


def enlarged(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits of every pixel of the image, in float32."""
    return functional.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


def _tower(reads: int, channels: int, layers: int) -> nn.ModuleList:
    tower = nn.ModuleList()
    for layer in range(layers):
        convolution = nn.Conv2d(channels if layer else reads, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        tower.append(nn.Sequential(convolution, group_norm(channels), nn.ReLU(inplace=True)))
    return tower
