"""How a sweep is run: which points, how long, by which measure, on what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from trainables.config import Config, setting, shown

_TIME = r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Config):
    """Which points are tried."""

    sampler: Literal["tpe", "random"] = setting("tpe", help="what chooses the points")
    trials: int = setting(40, at_least=1, at_most=10**6, help="points tried")
    seed: int = setting(
        0, at_least=0, at_most=2**32 - 1, help="of the sampler, and of training unless train.seed is set"
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Config):
    """What ends trials, or the sweep, before their time."""

    pruner: Literal["asha", "none"] = setting("asha", help="what ends trials that fall behind the others")
    grace_period: int | None = setting(
        None, at_least=1, help="steps before the pruner first looks at a trial; null: a sixteenth of all"
    )
    reduction_factor: int = setting(
        4,
        at_least=2,
        help="of asha: one in so many trials goes on at each look, the next one after so many times the steps",
    )
    patience: int | None = setting(
        None, at_least=1, help="epochs without a better value before a trial ends; null: never"
    )
    time_budget: str | None = setting(
        None, help="time after which the sweep ends, as 2h, 90m, 45s or 1h30m; null: none"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """The time budget is a time."""
        if self.time_budget is not None and not self.time_budget_seconds:
            yield "time_budget", f"need a time such as 2h, 90m, 45s or 1h30m, got {shown(self.time_budget)}"

    @property
    def time_budget_seconds(self) -> int | None:
        """The time budget in seconds; None: there is none."""
        match = re.fullmatch(_TIME, self.time_budget, re.ASCII) if self.time_budget is not None else None
        if match is None:
            return None
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Config):
    """What makes one trial better than another."""

    metric: Literal["validation/accuracy", "validation/loss"] = setting(help="what is compared")
    mode: Literal["max", "min"] = setting(help="whether more or less of it is better")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Accuracy is to be high and loss low: the kept weights of a trial are its best in that sense."""
        better = "min" if self.metric == "validation/loss" else "max"
        if self.mode != better:
            yield "mode", f"need {better!r} for {self.metric}, got {self.mode!r}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Config):
    """What each trial gets. As many trials run at once as the cluster has room for."""

    cpus: float = setting(1.0, above=0, help="cores of a trial")
    gpus: float = setting(0.0, at_least=0, help="GPUs of a trial: a share below 1, or a whole number")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Only one GPU can be shared."""
        if self.gpus > 1 and not self.gpus.is_integer():
            yield "gpus", f"need a share below 1 or a whole number, got {self.gpus!r}"


ACCURACY = Objective(metric="validation/accuracy", mode="max")
