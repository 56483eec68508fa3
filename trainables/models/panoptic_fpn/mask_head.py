"""What each detected thing covers: He et al., "Mask R-CNN" (2017), figure 4, with convolutions or a recurrent cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import FixedPoint, Step
from trainables.models.panoptic_fpn.gala import GalaCell

CONVOLUTIONS = 4
SIDE = 14
"""Rows and columns of what is read of a box; its mask has twice as many."""

Settle = Callable[[Step, Tensor], FixedPoint]
"""How a cell's map is iterated from a start: how often, and by which rule it learns."""


@final
class MaskHead(nn.Module):
    """Masks `[k, things, 28, 28]` of regions `[k, channels, 14, 14]`, as logits."""

    def __init__(self, channels: int, things: int, *, recurrent: bool) -> None:
        super().__init__()
        self.cell = GalaCell(channels) if recurrent else None
        if recurrent:
            self.body: nn.Module = nn.BatchNorm2d(channels)
        else:
            layers: list[nn.Module] = []
            for _ in range(CONVOLUTIONS):
                layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
            self.body = nn.Sequential(*layers)
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, things, 1)
        for module in (*self.body.modules(), self.enlarge, self.predictor):
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # ours all have one
        nn.init.normal_(self.predictor.weight, std=0.001)

    def forward(self, regions: Tensor, settle: Settle) -> tuple[Tensor, FixedPoint | None]:
        """The masks, and where the recurrent cell arrived."""
        found = None
        if self.cell is not None:
            drive = regions.float()
            found = settle(self.cell.step(drive), self.cell.start(drive))
            regions = found.state
        return self.predictor(torch.relu(self.enlarge(self.body(regions)))).float(), found


def mask_loss(logits: Tensor, classes: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy of each region's own class against masks `[k, 28, 28]`."""
    own = logits[torch.arange(len(classes), device=classes.device), classes]
    return functional.binary_cross_entropy_with_logits(own, masks)
