"""Residual networks of three levels, in each of which the blocks may share their convolutions' weights.

"Towards Efficient Recurrent Visual Models" (sections 3 and 4); the architecture and stochastic depth are those of Huang
et al. 2016. Axes: n images, c channels, h rows, w columns; k blocks of a level that have weights of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.config import setting
from trainables.family import FamilyConfig, TrainingLoss
from trainables.pull import Pull
from trainables.subsampling import subsampled
from trainables.tasks import Task
from trainables.train_config import TrainConfig

LevelName = Literal["lower", "middle", "upper"]
LEVELS: tuple[LevelName, ...] = ("lower", "middle", "upper")
"""From the input on."""
MOST_CHANNELS = 8192
"""Of a level, at most: 128 times the widest of ResNet-110."""
SAME = 1.0
"""Degrees: between weights below this angle, consolidation costs no accuracy that could be measured (section 3.1)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SharedResNetConfig(FamilyConfig):
    """A three-level ResNet whose blocks share weights: never, in the end (relaxed), from the start, or by being one.

    `blocks` of 18, 17, 17 is ResNet-110, the paper's "18 residual blocks per level"; its "3" is 3, 3, 3.
    """

    sharing: Literal["none", "relaxed", "raw", "minimal"] = setting(
        "relaxed",
        help="of convolution weights within a level; relaxed: of their own, pulled together (`train.pull`), made equal "
        "in the end; raw: the same ones from the start; minimal: there is one block only",
    )
    levels: tuple[LevelName, ...] = setting(LEVELS, help="where they are shared; elsewhere they are not")
    blocks: tuple[int, int, int] = setting(
        (18, 17, 17),
        at_least=1,
        at_most=200,
        help="blocks of the lower, middle and upper level that can share weights; the middle and the upper one begin "
        "with one more, which changes the shape",
    )
    channels: tuple[int, int, int] = setting(
        (16, 32, 64), at_least=1, at_most=MOST_CHANNELS, help="channels of the three levels"
    )
    width: float = setting(
        1.0, above=0, at_most=MOST_CHANNELS, help="multiplies every level's channels (rounded, at least 1)"
    )
    death_rate: float = setting(
        0.5,
        at_least=0,
        below=1,
        help="stochastic depth: share of batches that leave out the last block; it rises in a line from 0 at the first",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Levels that are there, each once; shortcuts that only ever add channels; no more than a machine can hold."""
        if not self.levels or len(set(self.levels)) < len(self.levels):
            yield "levels", f"need one or more of {', '.join(LEVELS)}, each once, got {list(self.levels)}"
        if list(self.channels) != sorted(self.channels):
            yield "channels", f"need no fewer channels than in the level before, got {list(self.channels)}"
        if max(self.widened) > MOST_CHANNELS:
            yield "width", f"need width x channels <= {MOST_CHANNELS}, got {self.width:g} x {list(self.channels)}"

    @property
    def widened(self) -> tuple[int, ...]:
        """The levels' channels after `width`."""
        return tuple(max(1, round(self.width * channels)) for channels in self.channels)

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> SharedResNet:
        """The network for inputs of any size (it ends in a global average pool)."""
        return SharedResNet(self, in_channels=input_shape[0], outputs=outputs)

    def training_loss(
        self, module: nn.Module, inputs: Tensor, targets: Tensor, *, task: Task, train: TrainConfig, progress: float
    ) -> TrainingLoss:
        """The task's loss; relaxed: and the pull times the squared distances between weights that are to be equal."""
        assert isinstance(module, SharedResNet)
        outputs = module(inputs).float()
        loss = task.loss(outputs, targets)
        if self.sharing != "relaxed":
            return TrainingLoss(outputs, loss)
        distance, pull = module.distance(), module.next_pull(train.pull, progress)
        return TrainingLoss(outputs, loss + pull * distance, {"pull": pull, "distance": distance.detach()})

    def inspect(self, module: nn.Module, *, train: TrainConfig, progress: float) -> Mapping[str, float]:
        """Relaxed: the mean and the largest angle, in degrees, between the weights of each set that is to be equal.

        Also `angle/largest` of all, and `angle/all_below_1`: whether (1 or 0) consolidation will not be felt.
        """
        assert isinstance(module, SharedResNet)
        metrics: dict[str, float] = {}
        largest = 0.0
        for name, weights in module.relaxed_sets().items():
            between = angles(weights)
            metrics[f"angle/{name}/mean"] = float(between.mean())
            metrics[f"angle/{name}/largest"] = float(between.max())
            largest = max(largest, metrics[f"angle/{name}/largest"])
        if metrics:
            metrics |= {"angle/largest": largest, "angle/all_below_1": float(largest < SAME)}
        return metrics

    def finish(self, module: nn.Module) -> tuple[FamilyConfig, nn.Module] | None:
        """Relaxed: the consolidated network, in which each set of weights is its mean, and there once."""
        if self.sharing != "relaxed":
            return None
        assert isinstance(module, SharedResNet)
        config = dataclasses.replace(self, sharing="raw")
        with torch.device("meta"):  # neither memory nor random numbers: the tensors are given below
            consolidated = SharedResNet(config, in_channels=module.in_channels, outputs=module.head.out_features)
        weights = module.state_dict()
        for name in weights.keys() - consolidated.state_dict().keys():
            del weights[name]  # what only a relaxed network remembers
        for number, level in enumerate(module.levels):
            if LEVELS[number] in self.levels:
                for convolution in ("conv1", "conv2"):
                    weights[f"levels.{number}.{convolution}"] = _mean(level.weights(convolution))
        consolidated.load_state_dict(weights, assign=True)
        return config, consolidated


@final
class SharedResNet(nn.Module):
    """A convolution, three levels of residual blocks, global average pool, linear read-out."""

    levels: Sequence[Level]
    pull: Tensor

    def __init__(self, config: SharedResNetConfig, *, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        first, _, last = config.widened
        convolution = nn.Conv2d(in_channels, first, kernel_size=3, padding=1)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(first), nn.ReLU(inplace=True))
        shared = [config.sharing if name in config.levels else "none" for name in LEVELS]
        blocks = [1 if how == "minimal" else count for how, count in zip(shared, config.blocks, strict=True)]
        lengths = [count + (number > 0) for number, count in enumerate(blocks)]
        rates = iter(death_rates(sum(lengths), config.death_rate))
        levels: list[Level] = []
        before = first
        for how, count, length, channels in zip(shared, blocks, lengths, config.widened, strict=True):
            of_its_own = count if how in ("none", "relaxed") else 1
            of_level = [next(rates) for _ in range(length)]
            padding = len(levels) > 0
            levels.append(Level(before, channels, of_its_own, of_level, padding=padding, relaxed=how == "relaxed"))
            before = channels
        self.levels = nn.ModuleList(levels)  # type: ignore[assignment]  # torch's does not say of what
        self.head = nn.Linear(last, outputs)
        nn.init.normal_(convolution.weight, std=_he(first))
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has one
        nn.init.zeros_(self.head.bias)
        if config.sharing == "relaxed":
            self.register_buffer("pull", torch.zeros(()))  # in the checkpoint: an adaptive pull has a past

    def forward(self, images: Tensor, run: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Outputs `[n, outputs]` of images `[n, c, h, w]`.

        Args:
            images: normalised.
            run: the numbers of the blocks that are run, by level, in order; the others leave nothing but their
                shortcuts. None: all, of which each batch in training leaves some out (stochastic depth).
        """
        x: Tensor = self.stem(images)
        for level, numbers in zip(self.levels, run if run is not None else self._drawn(), strict=True):
            x = level(x, numbers)
        outputs: Tensor = self.head(x.mean(dim=(2, 3)))
        return outputs

    def readout(self, blocks: Sequence[int]) -> list[list[int]]:
        """What `forward` runs (its `run`) to be read out after so many blocks of each level.

        Beyond those that there are, the last one goes on, with its batch norms.
        """
        return [
            [min(number, len(level.blocks) - 1) for number in range(count)]
            for level, count in zip(self.levels, blocks, strict=True)
        ]

    def representations(self, images: Tensor) -> Iterator[Tensor]:
        """Of each level: `[n, 1 + blocks, c, h, w]`, what its blocks start from and what each gives."""
        x = self.stem(images)
        for level in self.levels:
            states = list(level.states(x, range(len(level.blocks))))
            x = states[-1]
            yield torch.stack(states, dim=1)

    def relaxed_sets(self) -> dict[str, Tensor]:
        """The weights `[k, c c 3 3]` that are to become equal, by `<level>/<convolution>`."""
        return {
            f"{name}/{convolution}": level.weights(convolution).flatten(1)
            for name, level in zip(LEVELS, self.levels, strict=True)
            if level.relaxed and level.of_its_own > 1
            for convolution in ("conv1", "conv2")
        }

    def distance(self) -> Tensor:
        """The sum of squared distances of the relaxed weights to the means of their sets (section 3.1).

        Its gradient at a weight is twice the way from the mean. The mean itself counts as fixed: the distances to it
        sum to zero, so what they would do to it cancels.
        """
        sets = self.relaxed_sets().values()
        means = [weights.detach().mean(0).expand_as(weights) for weights in sets]
        # This loss is the fused form of the sum of squared differences.
        distances = [functional.mse_loss(*pair, reduction="sum") for pair in zip(sets, means, strict=True)]
        return sum(distances, self.head.weight.new_zeros(()))

    @torch.no_grad()
    def next_pull(self, pull: Pull, progress: float) -> Tensor:
        """The coefficient of the distance at this iteration; an adaptive one is remembered for the next."""
        if pull.kind != "adaptive":
            return torch.tensor(pull.value(progress))
        sets = self.relaxed_sets().values()
        if sets:
            largest = torch.stack([angles(weights).max() for weights in sets]).max()
            self.pull.copy_(pull.adapt(self.pull, largest, progress))
        return self.pull.clone()

    def _drawn(self) -> Iterator[list[int]]:
        """The numbers of the blocks of each level that are run."""
        for level in self.levels:
            rates = [block.death_rate if self.training else 0.0 for block in level.blocks]
            if not any(rates):
                yield list(range(len(rates)))
                continue
            chances = torch.rand(len(rates), device="cpu").tolist()  # every device leaves out the same blocks
            yield [number for number, (chance, rate) in enumerate(zip(chances, rates, strict=True)) if chance >= rate]


@final
class Level(nn.Module):
    """Residual blocks at one size, and the weights of their convolutions, in one tensor for each of the two.

    The first block of a level with `padding` halves rows and columns and adds channels; its weights are its own.

    Args:
        before: channels of its input.
        channels: of its output.
        of_its_own: blocks beside the padding one that have weights of their own: all, or 1 for all.
        death_rates: of its blocks, the padding one among them.
        padding: whether it has one.
        relaxed: whether the weights are to become equal.
    """

    blocks: Sequence[Block]

    def __init__(
        self,
        before: int,
        channels: int,
        of_its_own: int,
        death_rates: Sequence[float],
        *,
        padding: bool,
        relaxed: bool,
    ) -> None:
        super().__init__()
        self.of_its_own, self.padding, self.relaxed = of_its_own, padding, relaxed
        blocks = (
            Block(before if padding and number == 0 else channels, channels, rate, padding=padding and number == 0)
            for number, rate in enumerate(death_rates)
        )
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        shape = (of_its_own * channels, channels, 3, 3)  # four axes: what has a channels-last layout
        self.conv1, self.conv2 = (nn.Parameter(torch.randn(shape) * _he(channels)) for _ in range(2))
        if padding:
            first = (channels, before, 3, 3)
            self.padding_conv1 = nn.Parameter(torch.randn(first) * _he(channels))
            self.padding_conv2 = nn.Parameter(torch.randn(channels, *shape[1:]) * _he(channels))

    def forward(self, x: Tensor, run: Sequence[int]) -> Tensor:
        """`[n, before, h, w]` to `[n, channels, h, w]`, or half the rows and columns; `run` as in SharedResNet."""
        for state in self.states(x, run):
            x = state
        return x

    def states(self, x: Tensor, run: Sequence[int]) -> Iterator[Tensor]:
        """What the blocks start from (past the padding block's shortcut, where there is one) and what each gives."""
        assert not self.padding or 0 not in run[1:], f"the padding block can only come first, got {run}"
        weights = self._weights()
        start = self.blocks[0].shortcut(x)
        yield start
        if not (self.padding and 0 in run):  # else that block takes its own shortcut
            x = start
        for number in run:
            x = self.blocks[number](x, *weights[number])
            yield x

    def weights(self, convolution: str) -> Tensor:
        """`[k, c, c, 3, 3]`: those of `conv1` or `conv2` beside the padding block's, without a copy."""
        stacked: Tensor = getattr(self, convolution)
        return stacked.view(self.of_its_own, -1, *stacked.shape[1:])

    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        """Of each block."""
        # Unbound at once: taken one by one, each gradient would be as large as all of them.
        pairs = list(zip(*(self.weights(name).unbind() for name in ("conv1", "conv2")), strict=True))
        first = [(self.padding_conv1, self.padding_conv2)] if self.padding else []
        sharing = len(self.blocks) - len(first)
        return first + (pairs if self.of_its_own == sharing else pairs * sharing)


@final
class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to what came in; the weights are given to it (a level has them)."""

    def __init__(self, before: int, channels: int, death_rate: float, *, padding: bool) -> None:
        super().__init__()
        self.death_rate, self.stride, self.added = death_rate, 2 if padding else 1, channels - before
        self.bias1, self.bias2 = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor, weight1: Tensor, weight2: Tensor) -> Tensor:
        """`[n, before, h, w]` to `[n, channels, h / stride, w / stride]`; evaluation weighs it by survival."""
        after = functional.conv2d(x, weight1, self.bias1, stride=self.stride, padding=1)
        after = self.norm1(after).relu_()
        after = self.norm2(functional.conv2d(after, weight2, self.bias2, padding=1))
        if not self.training:
            after *= 1 - self.death_rate  # Huang et al. 2016, equation 5
        after += self.shortcut(x)
        activated: Tensor = after.relu_()
        return activated

    def shortcut(self, x: Tensor) -> Tensor:
        """What comes in; in a padding block every second row and column of it, and channels of zeros."""
        if self.stride == 1:
            return x
        return functional.pad(subsampled(x, self.stride), (0, 0, 0, 0, 0, self.added))


def death_rates(blocks: int, last: float) -> list[float]:
    """The share of training batches that leave out each block: 0 for the first, rising in a line (section 3.2)."""
    return [last * number / max(1, blocks - 1) for number in range(blocks)]


@torch.no_grad()
def angles(weights: Tensor) -> Tensor:
    """Degrees `[k (k - 1) / 2]` between all pairs of k vectors `[k, d]`; in float64, since a float32 cosine of
    angles below 0.02 degrees is 1."""
    directions = functional.normalize(weights.double(), dim=1)
    first, second = torch.triu_indices(len(weights), len(weights), offset=1, device=weights.device)
    return torch.rad2deg((directions @ directions.T)[first, second].clamp(-1, 1).acos()).float()


def _mean(weights: Tensor) -> Tensor:
    """The mean `[c, c, 3, 3]` of `[k, c, c, 3, 3]`; in float64, where that of equal numbers is that number."""
    return torch.empty_like(weights[0]).copy_(weights.double().mean(0))


def _he(channels: int) -> float:
    """The standard deviation of initial 3x3 weights: He et al. 2015 (equation 14), by what a channel goes out to."""
    return math.sqrt(2 / (9 * channels))
