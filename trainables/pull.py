"""How hard weights that are to become equal are pulled together over a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from trainables.config import Config, setting

RIGHT_ANGLE = 90.0
"""Degrees between independent weights, nearly."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pull(Config):
    """The coefficient of a family's relaxation penalty, as a function of the share of the training that is done."""

    kind: Literal["constant", "linear", "exponential", "cosine", "step", "adaptive"] = setting(
        "exponential",
        help="how the pull goes from `start` to `end`; constant: it stays at `start`; adaptive: up or down at each "
        "iteration, so that the largest angle between weights to be equal follows a curve from 90 degrees to `angle`",
    )
    start: float = setting(1e-4, above=0, help="the pull at first; of adaptive: the least")
    end: float = setting(1e-1, above=0, help="the pull in the end; of adaptive: the most")
    warmup: float = setting(
        0.0, at_least=0, below=1, help="share of the training in which the pull (or adaptive's curve) stays as at first"
    )
    steps: int = setting(4, at_least=2, help="of step: pulls, from `start` to `end` each so many times the one before")
    angle: float = setting(0.5, above=0, below=RIGHT_ANGLE, help="of adaptive: degrees at which its curve ends")
    rate: float = setting(
        0.1, above=0, at_most=1, help="of adaptive: the pull changes by this power of (largest angle / curve)"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """A range to adapt in."""
        if self.kind == "adaptive" and self.start >= self.end:
            yield "end", f"need end > start where kind is adaptive, got {self.end} and {self.start}"

    def value(self, progress: float) -> float:
        """The pull once a share `progress` of the training is done; that of `adaptive` is what `adapt` made of it."""
        assert self.kind != "adaptive", "an adaptive pull follows from the weights"
        done = self._done(progress)
        if self.kind == "constant":
            return self.start
        if self.kind == "linear":
            return self.start + (self.end - self.start) * done
        if self.kind == "cosine":
            return self.start + (self.end - self.start) * (1 - math.cos(math.pi * done)) / 2
        if self.kind == "step":
            done = min(math.floor(done * self.steps), self.steps - 1) / (self.steps - 1)
        return self.start * math.pow(self.end / self.start, done)

    def curve(self, progress: float) -> float:
        """Degrees at which `adaptive` wants the largest angle: exponentially from 90 to `angle`."""
        return RIGHT_ANGLE * math.pow(self.angle / RIGHT_ANGLE, self._done(progress))

    def adapt(self, pull: Tensor, angle: Tensor, progress: float) -> Tensor:
        """The next pull of `adaptive`, from the last one (zero: there was none) and the largest angle, in degrees."""
        before = pull.clamp(self.start, self.end)
        return (before * (angle / self.curve(progress)) ** self.rate).clamp(self.start, self.end)

    def _done(self, progress: float) -> float:
        """The share of what comes after the warm-up."""
        return max(0.0, (progress - self.warmup) / (1 - self.warmup))
