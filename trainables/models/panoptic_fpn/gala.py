"""The recurrent cell of the mask head: an hGRU whose first gate attends to channels and places.

Linsley, Karkada Ashok, Govindarajan, Liu and Serre, "Stable and expressive recurrent vision models" (2020), section 5;
the gate is that of Linsley et al., "Learning what and where to attend" (2019), here without pooling over places.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import Step
from trainables.models.panoptic_fpn.backbone import group_norm

INITIAL_SCALE = 0.1
"""Of the group norms inside."""


@final
class GalaCell(nn.Module):
    """One state `[k, c, h, w]` and how it changes under a drive of the same shape.

    With N group norm, s the logistic function, + the softplus, * a 3x3 convolution and products elsewhere by channel:

        g1 = s(channel(h) spatial(h) + b);  c1 = N(W1 * (h g1));  z = +(x - c1 (alpha h + mu))
        g2 = s(U z + d);                    c2 = +(N(W2 * z));    h <- (1 - g2) h + g2 c2

    With 256 channels it has 1,576,256 parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed, half = max(1, channels // 4), max(1, channels // 2)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.Softplus(), nn.Conv2d(squeezed, channels, 1, bias=False)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, half, 3, padding=1), nn.Softplus(), nn.Conv2d(half, 1, 3, padding=1, bias=False)
        )
        self.inhibition, self.excitation = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.update = nn.Conv2d(channels, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.norms = nn.ModuleList(group_norm(channels) for _ in range(2))
        for norm in self.norms:
            nn.init.constant_(norm.weight, INITIAL_SCALE)  # type: ignore[arg-type]
        self.bias, self.alpha, self.mu = (
            nn.Parameter(torch.full((channels, 1, 1), value)) for value in (0.0, 0.1, 1.0)
        )

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step: zeros."""
        return torch.zeros_like(drive)

    def step(self, drive: Tensor) -> Step:
        """The map of one drive, float32 `[k, c, h, w]`."""

        def advance(state: Tensor, _: int) -> Tensor:
            first = torch.sigmoid(self.channel(state) * self.spatial(state) + self.bias)
            met = self.norms[0](self.inhibition(state * first))
            between = functional.softplus(drive - met * torch.addcmul(self.mu, self.alpha, state))
            second = torch.sigmoid(self.update(between))
            helped = functional.softplus(self.norms[1](self.excitation(between)))
            return torch.lerp(state.float(), helped.float(), second.float())

        return advance
