"""What is before and after the recurrent circuit: drives from images, and answers from states."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models.contour_rnn.gabor import SIDE, gabor_bank
from trainables.models.contour_rnn.normalization import Statistics, StepNorm

RARE = 0.01
"""The share of pixels that a segmentation network takes to be on before it has learnt anything (Lin et al. 2017)."""


@final
class GaborDrive(nn.Module):
    """Responses to Gabor filters, which are learnt further; squared (with a bias before) or else batch-normalised."""

    def __init__(self, in_channels: int, channels: int, *, squared: bool, statistics: Statistics) -> None:
        super().__init__()
        self.weight = nn.Parameter(gabor_bank(channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if squared else None
        self.norm = None if squared else StepNorm(channels, 1, statistics=statistics)

    def forward(self, images: Tensor) -> Tensor:
        """Drives `[n, channels, h, w]` of images `[n, in_channels, h, w]`, in float32."""
        responses = functional.conv2d(images, self.weight, self.bias, padding=SIDE // 2).float()
        if self.norm is None:
            return responses.square()
        normalised: Tensor = self.norm(responses, 0)
        return normalised


@final
class PooledDrive(nn.Module):
    """The input block of td+hCNN: a convolution, rectified, pooled to half the size, a second one, batch norm."""

    def __init__(self, in_channels: int, channels: int, *, statistics: Statistics) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, SIDE, padding=SIDE // 2)
        self.second = nn.Conv2d(channels, channels, SIDE, padding=SIDE // 2, bias=False)
        self.norm = StepNorm(channels, 1, statistics=statistics)

    def forward(self, images: Tensor) -> Tensor:
        """Drives `[n, channels, h / 2, w / 2]` of images `[n, in_channels, h, w]`, in float32."""
        # The pool first: the same numbers, a quarter of the work.
        maps = self.second(torch.relu(functional.max_pool2d(self.first(images), 2)))
        normalised: Tensor = self.norm(maps, 0)
        return normalised.float()


@final
class ImageReadout(nn.Module):
    """One answer an image: batch norm, two maps, their maxima over the image, batch norm, a linear layer."""

    def __init__(self, channels: int, outputs: int, *, normalized: bool, bias: bool, statistics: Statistics) -> None:
        super().__init__()
        maps = max(2, outputs)
        self.norm = StepNorm(channels, 1, statistics=statistics) if normalized else None
        self.maps = nn.Conv2d(channels, maps, 1, bias=bias)
        # Running statistics in any case: a single image's maxima have no variance.
        self.pooled_norm = StepNorm(maps, 1)
        self.head = nn.Linear(maps, outputs)

    def forward(self, state: Tensor) -> Tensor:
        """Outputs `[n, outputs]` of states `[n, c, h, w]`."""
        maps: Tensor = self.maps(state if self.norm is None else self.norm(state, 0))
        pooled = self.pooled_norm(maps.amax(dim=(2, 3), keepdim=True), 0).flatten(1)
        outputs: Tensor = self.head(pooled)
        return outputs


@final
class PixelReadout(nn.Module):
    """One answer a pixel: batch norm and a 1x1 convolution.

    The public code gives both logits of a pixel the bias log 99, which does nothing. As focal loss asks for, only the
    first logit, of the ground that most pixels are, starts there; one that is alone starts at -log 99.
    """

    def __init__(self, channels: int, outputs: int, *, normalized: bool, statistics: Statistics) -> None:
        super().__init__()
        self.norm = StepNorm(channels, 1, statistics=statistics) if normalized else None
        self.maps = nn.Conv2d(channels, outputs, 1)
        nn.init.xavier_normal_(self.maps.weight)
        assert self.maps.bias is not None
        nn.init.zeros_(self.maps.bias)
        odds = math.log((1 - RARE) / RARE)
        self.maps.bias.data[0] = -odds if outputs == 1 else odds

    def forward(self, state: Tensor) -> Tensor:
        """Outputs `[n, outputs, h, w]` of states `[n, c, h, w]`."""
        maps: Tensor = self.maps(state if self.norm is None else self.norm(state, 0))
        return maps
