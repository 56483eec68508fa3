"""The residual network below the pyramid: He et al., "Deep residual learning for image recognition" (2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

Backbone = Literal["resnet50", "resnet101", "small"]
Normalization = Literal["group", "frozen_batch"]
STAGES = 4
BOTTLENECK = 4
"""A bottleneck's block gives so many times the channels that its 3x3 convolution has."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Blocks of the four stages, and the channels of the first one's 3x3 convolutions; each stage has twice as many."""

    blocks: tuple[int, int, int, int]
    channels: int
    bottleneck: bool


LAYOUTS: Mapping[Backbone, Layout] = {
    "resnet50": Layout((3, 4, 6, 3), 64, bottleneck=True),
    "resnet101": Layout((3, 4, 23, 3), 64, bottleneck=True),
    "small": Layout((1, 1, 1, 1), 16, bottleneck=False),
}


@final
class FrozenBatchNorm(nn.Module):
    """Batch norm whose four numbers a channel are buffers: they come with weights, and training leaves them."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.ones(channels))
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `[n, c, h, w]`, scaled and shifted by channel."""
        scale = self.weight * (self.running_var + self.epsilon).rsqrt()
        shift = self.bias - self.running_mean * scale
        return maps * scale[:, None, None].to(maps.dtype) + shift[:, None, None].to(maps.dtype)


def group_norm(channels: int) -> nn.GroupNorm:
    """Of 32 groups, or as many as channels can be shared out to."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


@final
class ResNet(nn.Module):
    """Maps `[n, c, h, w]` of four stages, at strides 4, 8, 16 and 32, of images.

    Args:
        in_channels: of the images.
        layout: see `LAYOUTS`.
        normalization: after each convolution.
        frozen: parts, from the input on, that keep their weights: the stem is the first.
    """

    def __init__(self, in_channels: int, layout: Layout, normalization: Normalization, frozen: int) -> None:
        super().__init__()
        channels = layout.channels
        self.stem = nn.Sequential(
            _convolution(in_channels, channels, 7, 2, normalization),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        reads, stages, self.channels = channels, [], list[int]()
        for stage, blocks in enumerate(layout.blocks):
            width, stack = channels * 2**stage, list[nn.Module]()
            for block in range(blocks):
                stack.append(_Block(reads, width, 2 if stage and not block else 1, layout.bottleneck, normalization))
                reads = width * (BOTTLENECK if layout.bottleneck else 1)
            stages.append(nn.Sequential(*stack))
            self.channels.append(reads)
        self.stages = nn.ModuleList(stages)
        for part in [self.stem, *stages][:frozen]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """What each stage gives, the finest first."""
        maps, found = self.stem(images), []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found


@final
class _Block(nn.Module):
    def __init__(self, reads: int, width: int, stride: int, bottleneck: bool, normalization: Normalization) -> None:
        super().__init__()
        makes = width * BOTTLENECK if bottleneck else width
        # The stride is in the first convolution, as in the weights of the first authors that Detectron2 starts from.
        layers = [(reads, width, 1, stride), (width, width, 3, 1), (width, makes, 1, 1)]
        if not bottleneck:
            layers = [(reads, width, 3, stride), (width, width, 3, 1)]
        body: list[nn.Module] = []
        for layer in layers:
            body += [_convolution(*layer, normalization), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body[:-1])
        changes = stride > 1 or reads != makes
        self.shortcut = _convolution(reads, makes, 1, stride, normalization) if changes else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.body(maps) + self.shortcut(maps))


def _convolution(reads: int, makes: int, kernel: int, stride: int, normalization: Normalization) -> nn.Sequential:
    convolution = nn.Conv2d(reads, makes, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    norm = FrozenBatchNorm(makes) if normalization == "frozen_batch" else group_norm(makes)
    return nn.Sequential(convolution, norm)
