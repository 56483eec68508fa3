"""PoseNet and PoseLSTM: where a camera was and how it was held, from one image.

A. Kendall, M. Grimes, R. Cipolla, "PoseNet", ICCV 2015; F. Walch et al., "Image-based localization using LSTMs for
structured feature correlation", ICCV 2017; O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps",
figure 3.2. The backbone is GoogLeNet (C. Szegedy et al., CVPR 2015, table 1) without batch norm. Axes: n images,
c channels, h rows, w columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.config import setting
from trainables.family import FamilyConfig, TrainingLoss
from trainables.four_directional_rnn import FourDirectionalRNN, Recurrence
from trainables.tasks import PoseRegression, Task
from trainables.train_config import TrainConfig

ROWS, COLUMNS, AUXILIARY_COLUMNS = 32, 64, 32  # of the feature vectors as maps
SQUEEZED = 128  # channels of an auxiliary head
HEADS: dict[str, tuple[str, float]] = {
    "first_auxiliary": ("4a", 0.3),
    "second_auxiliary": ("4d", 0.3),
    "main": ("5b", 1.0),
}
"""What each head reads, and its weight in the loss."""


class _Inception(NamedTuple):
    """Channels of one block: 1x1; 3x3 and what it reads; 5x5 and what it reads; after pooling."""

    one: int
    three_reads: int
    three: int
    five_reads: int
    five: int
    pooled: int


INCEPTIONS = {
    "3a": _Inception(64, 96, 128, 16, 32, 32),
    "3b": _Inception(128, 128, 192, 32, 96, 64),
    "4a": _Inception(192, 96, 208, 16, 48, 64),
    "4b": _Inception(160, 112, 224, 24, 64, 64),
    "4c": _Inception(128, 128, 256, 24, 64, 64),
    "4d": _Inception(112, 144, 288, 32, 64, 64),
    "4e": _Inception(256, 160, 320, 32, 128, 128),
    "5a": _Inception(256, 160, 320, 32, 128, 128),
    "5b": _Inception(384, 192, 384, 48, 128, 128),
}
POOLED_AFTER = ("3b", "4e")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoseNetConfig(FamilyConfig):
    """GoogLeNet with three pose regressors; those of PoseLSTM sweep their features in four directions first."""

    head: Literal["fc", "lstm"] = setting("lstm", help="fc: PoseNet; lstm: PoseLSTM")
    hidden_size: int = setting(256, at_least=1, at_most=65_536, help="of lstm: units of each of the four directions")
    width: float = setting(1.0, above=0, at_most=1, help="share of all channels and features that is kept")
    beta: float | None = setting(
        None, above=0, help="weight of the orientation in the loss, the position's being 1; none: the dataset's own"
    )

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> PoseNet:
        """The network. Its heads start as in the program of Walch et al., but for the orientation's bias (see `_head`).

        The backbone starts at random (Kaiming), where theirs had learned Places; `train.initial_weights` may mend that.

        Raises:
            ValueError: an image is smaller than 65 x 65.
        """
        if min(input_shape[1:]) < SMALLEST:
            raise ValueError(
                f"pose_net: need images of at least {SMALLEST} x {SMALLEST}, got {input_shape[1]} x {input_shape[2]}"
            )
        return PoseNet(self, input_shape)

    @property
    def tasks(self) -> frozenset[str]:
        """Camera poses."""
        return frozenset({"pose"})

    @property
    def trains_whole(self) -> bool:
        """It calls `poses`, of all heads."""
        return False

    def training_loss(
        self, module: nn.Module, inputs: Tensor, targets: Tensor, *, task: Task, train: TrainConfig, progress: float
    ) -> TrainingLoss:
        """The task's loss of the main head and, with less weight, of the auxiliary ones."""
        assert isinstance(module, PoseNet)
        assert isinstance(task, PoseRegression)
        weighted = task if self.beta is None else dataclasses.replace(task, beta=self.beta)
        poses = module.poses(inputs)
        losses = [weight * weighted.loss(poses[head], targets) for head, (_, weight) in HEADS.items()]
        return TrainingLoss(poses["main"], torch.stack(losses).sum())

    def scaled(self, number: int) -> int:
        """So many channels or features at this width."""
        return max(1, round(self.width * number))


STRIDE = 16  # pixels to one of 4a's and 4d's maps
SMALLEST = 4 * STRIDE + 1  # then those maps have the five rows and columns that the auxiliary heads pool


@final
class PoseNet(nn.Module):
    """Camera poses `[n, 7]` of images `[n, c, h, w]`: position x, y, z, then the unit quaternion, scalar first."""

    def __init__(self, config: PoseNetConfig, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, *sides = input_shape
        self.backbone = _backbone(channels, config)
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # ours all have one
        self.heads = nn.ModuleDict()
        for name, (block, _) in HEADS.items():
            reads = sum(_made(INCEPTIONS[block], config))
            rows, columns = (-(-side // STRIDE) for side in sides)
            self.heads[name] = _main(reads, config) if name == "main" else _auxiliary(reads, rows, columns, config)

    def forward(self, images: Tensor) -> Tensor:
        """The main head's poses."""
        return self._poses(images, ("main",))["main"]

    def poses(self, images: Tensor) -> dict[str, Tensor]:
        """The poses that each head gives, by its name."""
        return self._poses(images, tuple(HEADS))

    def _poses(self, images: Tensor, heads: tuple[str, ...]) -> dict[str, Tensor]:
        reader = {HEADS[head][0]: head for head in heads}
        found = {}
        for name, layer in self.backbone.named_children():
            images = layer(images)
            if name in reader:
                found[reader[name]] = self.heads[reader[name]](images)
        return found


@final
class _Block(nn.Module):
    """An inception block: four ways to read the map, their channels side by side."""

    def __init__(self, reads: int, inception: _Inception, config: PoseNetConfig) -> None:
        super().__init__()
        one, three_reads, three, five_reads, five, pooled = (config.scaled(number) for number in inception)
        self.one = _convolution(reads, one, 1)
        self.three = nn.Sequential(_convolution(reads, three_reads, 1), _convolution(three_reads, three, 3))
        self.five = nn.Sequential(_convolution(reads, five_reads, 1), _convolution(five_reads, five, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _convolution(reads, pooled, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self.one(maps), self.three(maps), self.five(maps), self.pooled(maps)], dim=1)


@final
class _Pose(nn.Module):
    """From features to a pose."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.position, self.orientation = nn.Linear(reads, 3), nn.Linear(reads, 4)

    def forward(self, features: Tensor) -> Tensor:
        quaternions = functional.normalize(self.orientation(features).float(), dim=1)
        return torch.cat([self.position(features).float(), quaternions], dim=1)


def _convolution(reads: int, makes: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(reads, makes, kernel, stride, padding=kernel // 2), nn.ReLU(inplace=True))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, padding=1)


def _normalization() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def _made(inception: _Inception, config: PoseNetConfig) -> list[int]:
    """The channels that a block puts side by side."""
    return [config.scaled(number) for number in (inception.one, inception.three, inception.five, inception.pooled)]


def _backbone(channels: int, config: PoseNetConfig) -> nn.Sequential:
    first, second = config.scaled(64), config.scaled(192)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            _convolution(channels, first, 7, stride=2),
            _pool(),
            _normalization(),
            _convolution(first, first, 1),
            _convolution(first, second, 3),
            _normalization(),
            _pool(),
        )
    )
    reads = second
    for name, inception in INCEPTIONS.items():
        layers[name] = _Block(reads, inception, config)
        reads = sum(_made(inception, config))
        if name in POOLED_AFTER:
            layers[f"pool{name[0]}"] = _pool()
    return nn.Sequential(layers)


def _auxiliary(reads: int, rows: int, columns: int, config: PoseNetConfig) -> nn.Sequential:
    """A head on a map in the middle of the backbone."""
    squeezed = config.scaled(SQUEEZED)
    positions = ((rows - 5) // 3 + 1) * ((columns - 5) // 3 + 1)
    pooled = [nn.AvgPool2d(5, stride=3), _convolution(reads, squeezed, 1)]
    return _head(pooled, squeezed * positions, config.scaled(AUXILIARY_COLUMNS), 0.7, config)


def _main(reads: int, config: PoseNetConfig) -> nn.Sequential:
    return _head([nn.AdaptiveAvgPool2d(1)], reads, config.scaled(COLUMNS), 0.5, config)


def _head(pooled: list[nn.Module], reads: int, columns: int, drop: float, config: PoseNetConfig) -> nn.Sequential:
    """Features, for PoseLSTM swept as a map of 32 rows, and the pose; initialised from narrow normal distributions."""
    features = ROWS * columns
    layers: list[nn.Module] = [*pooled, nn.Flatten(), nn.Linear(reads, features), nn.ReLU(inplace=True)]
    if config.head == "lstm":
        recurrence = Recurrence(unit="lstm", hidden_size=config.hidden_size)
        layers += [FourDirectionalRNN((1, ROWS, columns), recurrence), nn.Flatten()]
        features = 4 * config.hidden_size
    pose = _Pose(features)
    head = nn.Sequential(*layers, nn.Dropout(drop), pose)
    for module in head.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            # Narrower layers keep the variance of their sums.
            nn.init.normal_(module.weight, std=0.5 if module is pose.position else 0.01 / math.sqrt(config.width))
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    nn.init.xavier_normal_(parameter)
                else:
                    nn.init.zeros_(parameter)
    # The first answers are near to a camera that is not turned. With the zeros of Walch et al. they would be of a
    # direction that is random and jumps.
    with torch.no_grad():
        pose.orientation.bias[0] = 1.0
    return head
