"""ResNet-18 with its channels cut down: the narrow ResNets that trace paths.

Lüddecke and Ecker, "CNNs efficiently learn long-range dependencies" (section 2.2); the residual block is that of
He et al. 2016. Axes: n images, c channels, h rows, w columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from trainables.config import setting, shown
from trainables.family import FamilyConfig
from trainables.subsampling import subsampled

BLOCKS_A_STAGE = 2
MOST_CHANNELS = (
    8192  # 16 times the published ResNet-18's: 2.9e9 parameters, 46 GB with their gradients and Adam's moments
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowResNetConfig(FamilyConfig):
    """ResNet-18 by its channels: 8-16-16-16 snRN18, 16-32-32-32 nRN18, 24-48-48-128 lnRN18, 64-128-256-512 RN18."""

    channels: tuple[int, int, int, int] = setting(
        (16, 32, 32, 32), at_least=1, at_most=MOST_CHANNELS, help="channels of the four stages"
    )
    width: float = setting(
        1.0, above=0, at_most=MOST_CHANNELS, help="multiplies every stage's channels (rounded, at least 1)"
    )
    residual: bool = setting(
        True, help="add the shortcut; without, its projections stay allocated, so that the parameter count is the same"
    )

    @property
    def widened(self) -> tuple[int, ...]:
        """The stages' channels after `width`."""
        return tuple(max(1, round(self.width * channels)) for channels in self.channels)

    def rules(self) -> Iterator[tuple[str, str]]:
        """What is widened stays within what a machine can hold."""
        if max(self.widened) > MOST_CHANNELS:
            channels = shown(list(self.channels))
            yield "width", f"need width x channels <= {MOST_CHANNELS}, got {self.width:g} x {channels}"

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> NarrowResNet:
        """The network for inputs of any size (it ends in a global average pool)."""
        return NarrowResNet(self, in_channels=input_shape[0], outputs=outputs)


@final
class NarrowResNet(nn.Module):
    """Stem, four stages of two basic blocks, global average pool, linear read-out."""

    def __init__(self, config: NarrowResNetConfig, *, in_channels: int, outputs: int) -> None:
        super().__init__()
        first, last = config.widened[0], config.widened[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, first, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(first),
            # The pool first: the same numbers (the largest is positive or none is), a quarter of the work.
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        blocks, before = [], first
        for stage, channels in enumerate(config.widened):
            for block in range(BLOCKS_A_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(before, channels, stride=stride, residual=config.residual))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(last, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `[n, outputs]` of images `[n, c, h, w]`."""
        outputs: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return outputs


@final
class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut that is projected wherever the shape changes."""

    def __init__(self, before: int, channels: int, *, stride: int, residual: bool) -> None:
        super().__init__()
        self.residual, self.stride = residual, stride
        self.body = nn.Sequential(
            nn.Conv2d(before, channels, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        # A projection even where 32 channels follow 32: the published counts have one at every change of stride.
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, channels, kernel_size=1, bias=False), nn.BatchNorm2d(channels)
            )
        if not residual:
            self.shortcut.requires_grad_(False)  # allocated for the published count, never used

    def forward(self, x: Tensor) -> Tensor:
        """`[n, before, h, w]` to `[n, channels, h / stride, w / stride]`."""
        after: Tensor = self.body(x)
        if self.residual:
            # In place, as is the ReLU: neither's input is needed on the way back.
            after += self.shortcut(subsampled(x, self.stride))
        return after.relu_()
