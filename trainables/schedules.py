"""How the learning rate changes over a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from trainables.config import Config, setting


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Config):
    """Places are shares of the whole budget: a shorter training keeps the shape of its longer model."""

    kind: Literal["constant", "step", "cosine"] = setting("constant", help="how the learning rate falls")
    warm_up: float = setting(
        0.0,
        at_least=0,
        below=1,
        help="share of the budget in which the learning rate rises in a line to its full value",
    )
    milestones: tuple[float, ...] = setting(
        (0.5, 0.75), above=0, below=1, help="of `step`: shares of the budget after which it is multiplied by `factor`"
    )
    factor: float = setting(0.1, above=0, below=1, help="of `step`")
    end: float = setting(0.0, at_least=0, below=1, help="of `cosine`: the share of the learning rate left at the end")

    def multiplier(self, iteration: int, iterations: int) -> float:
        """What the learning rate is multiplied by in an iteration, 0 <= iteration < iterations.

        Cosine annealing is that of Loshchilov and Hutter 2017 (equation 5) without restarts.
        """
        warm_up = self.warm_up * iterations
        if iteration + 1 < warm_up:
            return (iteration + 1) / warm_up
        if self.kind == "step":
            return self.factor ** sum(iteration >= milestone * iterations for milestone in self.milestones)
        if self.kind == "cosine":
            place = max(0.0, iteration - warm_up) / (iterations - warm_up)
            return self.end + (1 - self.end) * (1 + math.cos(math.pi * place)) / 2
        return 1.0
