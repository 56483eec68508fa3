"""How a sweep is run: which points, how long, by which measure, on what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from trainables.config import Config, nearest, setting, shown
from trainables.tasks import METRICS

SIZES: Mapping[str, Literal["max", "min"]] = {"model/parameters": "min", "model/multiply_adds": "min"}
"""What is known of a model before it is trained."""
COMPARABLE = {**METRICS, **SIZES}
"""Everything that trials can be compared by, and whether more or less of it is better."""
_TIME = r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationTraining(Config):
    """How a population of trials learns from each other while it trains."""

    interval: int = setting(at_least=1, help="steps of each trial between two looks at all of them")
    quantile: float = setting(
        0.25, above=0, at_most=0.5, help="share of the trials that at each look copy one of as many best ones"
    )
    resample: float = setting(
        0.25, at_least=0, at_most=1, help="how likely each setting of a copy is drawn anew from its whole range"
    )
    factors: tuple[float, ...] = setting(
        (0.8, 1.2), above=0, help="else a number is multiplied by one of these; a choice moves to a value beside it"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Something to multiply by."""
        if not self.factors:
            yield "factors", "need at least one factor, got none"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Config):
    """Which points are tried."""

    sampler: Literal["tpe", "random", "grid", "quasi-random", "cma-es", "gp", "nsga-ii"] = setting(
        "tpe", help="what chooses the points; grid: each one once"
    )
    trials: int = setting(
        40, at_least=1, at_most=10**6, help="points tried, each `repeats` times; left out with a grid: all of them"
    )
    seed: int = setting(
        0, at_least=0, at_most=2**32 - 1, help="of the sampler, and of training unless train.seed is set"
    )
    repeats: int = setting(1, at_least=1, at_most=1000, help="trials a point, with train.seed, train.seed + 1, ...")
    aggregate: Literal["mean", "best"] = setting("mean", help="of a point's repeats, what the point counts with")
    population: int = setting(20, at_least=2, at_most=1000, help="of nsga-ii: points in a generation")
    pbt: PopulationTraining | None = setting(
        None,
        help="population-based training of the `trials`, which begin at points of the sampler (left out: quasi-random)",
    )
    enqueue: tuple[Mapping[str, Any], ...] = setting((), help="points to try first, whole ones; they count as trials")
    warm_start: tuple[str, ...] = setting(
        (),
        help="ids of earlier sweeps with these objectives; tpe, gp and nsga-ii know what of their points had completed "
        "when this one was submitted, and fits the space",
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Config):
    """What ends trials, or the sweep, before their time."""

    pruner: Literal["asha", "hyperband", "median", "patient", "none"] = setting(
        "asha", help="what ends trials that fall behind the others; patient: median, for those that get worse"
    )
    grace_period: int | None = setting(
        None,
        at_least=1,
        help="steps before the pruner first looks at a trial, for patient at any stretch; null: a sixteenth of all",
    )
    reduction_factor: int = setting(
        4,
        at_least=2,
        help="of asha, hyperband: one in so many trials goes on at each look; then after so many times the steps",
    )
    patience: int | None = setting(
        None, at_least=1, help="steps (by default epochs) without a better value before a trial ends; null: never"
    )
    time_budget: str | None = setting(
        None, help="time after which the sweep ends, as 2h, 90m, 45s or 1h30m; null: none"
    )

    silence_limit: str | None = setting(
        None,
        help="time without a report, at first from when the trial has its data and model, after which its worker is "
        "taken to hang and replaced; null: never",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Times are times."""
        for name in ("time_budget", "silence_limit"):
            value = getattr(self, name)
            if value is not None and not _seconds(value):
                yield name, f"need a time such as 2h, 90m, 45s or 1h30m, got {shown(value)}"

    @property
    def time_budget_seconds(self) -> int | None:
        """The time budget in seconds; None: there is none."""
        return _seconds(self.time_budget)

    @property
    def silence_limit_seconds(self) -> int | None:
        """The silence limit in seconds; None: there is none."""
        return _seconds(self.silence_limit)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Config):
    """What makes one trial better than another."""

    metric: str = setting(help="what is compared: a metric of the dataset's task, or the size of the model")
    mode: Literal["max", "min"] = setting(help="whether more or less of it is better")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Accuracy is to be high and loss low: the kept weights of a trial are its best in that sense."""
        better = COMPARABLE.get(self.metric)
        if better is None:
            yield "metric", f"unknown metric {shown(self.metric)}; {nearest(self.metric, list(COMPARABLE))}"
        elif self.mode != better:
            yield "mode", f"need {better!r} for {self.metric}, got {self.mode!r}"

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The config's JSON Schema (draft 2020-12), with every metric of every task."""
        schema = super(Objective, cls).json_schema()
        schema["properties"]["metric"]["enum"] = sorted(COMPARABLE)
        return schema


SHARE = 1e-4
"""Ray counts resources in ten-thousandths."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Config):
    """What each trial gets, and what the sweep may take."""

    cpus: float = setting(1.0, at_least=SHARE, help="cores of a trial")
    gpus: float = setting(0.0, at_least=0, help="GPUs of a trial: a share below 1, or a whole number")

    max_concurrent: int | None = setting(
        None, at_least=1, help="trials at once, at most; null: as many as the cluster has room for"
    )
    priority: int = setting(
        0, at_least=-1000, at_most=1000, help="of the sweeps that wait, those with most are launched first"
    )

    keep_best: int | None = setting(
        10,
        at_least=1,
        help="points whose checkpoints stay: the best, by the first objective; also kept are the Pareto front, models, "
        "what other sweeps start from and what can go on; null: all",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Only one GPU can be shared, and a share has a least size."""
        if 0 < self.gpus < SHARE:
            yield "gpus", f"need 0 or at least {SHARE:g}, got {self.gpus!r}"
        if self.gpus > 1 and not self.gpus.is_integer():
            yield "gpus", f"need a share below 1 or a whole number, got {self.gpus!r}"

    def misfit(self, nodes: Sequence[Mapping[str, float]]) -> str | None:
        """Why no node can ever hold one trial; None: one can, be it busy or not.

        Only nodes that are there count: a cluster that grows on demand would first have to be asked for one that fits.

        Args:
            nodes: what each living node has in all, as `{"CPU": 2, "GPU": 1}`.
        """
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        if any(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in nodes):
            return None
        for name, amount in needs.items():
            largest = max((node.get(name, 0) for node in nodes), default=0)
            if largest < amount:
                return f"a trial needs {amount:g} {name}; the largest node has {largest:g}"
        return f"a trial needs {self.cpus:g} CPU and {self.gpus:g} GPU; no node has both"

    def room(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many trials of the sweep these nodes hold at a time, each on one node."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        held = sum(
            min(int(node.get(name, 0) / amount + 1e-9) for name, amount in needs.items() if amount > 0)
            for node in nodes
        )
        return min(held, self.max_concurrent or held)


def _seconds(time: str | None) -> int | None:
    """Of a time such as 1h30m; None where it is none."""
    match = re.fullmatch(_TIME, time, re.ASCII) if time is not None else None
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


ACCURACY = Objective(metric="validation/accuracy", mode="max")
