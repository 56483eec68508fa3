"""Population-based training: now and then the worst trials go on from the best ones' weights, and settings near theirs.

Jaderberg et al. 2017, "Population based training of neural networks" (arXiv:1711.09846), by the rule of Ray Tune's
scheduler in its synchronous form, save that a setting never leaves its range. All follows from the trials' values, the
seed and the step: asked again, it answers alike. Higher is better here; who has it the other way round gives negative
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, final

from search_spaces import Choice, Float, Int, SearchSpace, same
from service.plan import Objective, PopulationTraining, Search, Stop
from trainables.config import Fault
from trainables.train_config import CHANGEABLE


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A trial when the population is looked at."""

    number: int
    value: float
    """Of its weights as they are now."""
    point: Mapping[str, Any]


class Copy(NamedTuple):
    """A trial goes on from another's weights."""

    number: int
    source: int
    point: dict[str, Any]
    """With these settings from now on."""


def copies(
    members: Sequence[Member], *, training: PopulationTraining, space: SearchSpace, seed: int, step: int
) -> list[Copy]:
    """Exploit and explore: each of the worst `quantile` copies one of the best `quantile`, at random, and moves away.

    Members without a number for a value neither copy nor are copied. Of equal values the lower number counts as worse.
    """
    ranked = sorted((one for one in members if not math.isnan(one.value)), key=lambda one: (one.value, one.number))
    count = min(math.ceil(len(ranked) * training.quantile), len(ranked) // 2)
    best = ranked[len(ranked) - count :]
    made = []
    for member in ranked[:count]:
        rng = Random(f"{seed} {step} {member.number}")  # noqa: S311 - to be the same again, not to be secret
        source = rng.choice(best)
        made.append(Copy(member.number, source.number, _explored(source.point, training, space, rng)))
    return made


def _explored(
    point: Mapping[str, Any], training: PopulationTraining, space: SearchSpace, rng: Random
) -> dict[str, Any]:
    return {name: explored(parameter, point[name], training, rng) for name, parameter in space.items()}


def explored(parameter: Float | Int | Choice, value: Any, training: PopulationTraining, rng: Random) -> Any:
    """Another value: drawn anew, or a number times a factor, within its range, or a value beside it of a choice."""
    anew = rng.random() < training.resample
    if isinstance(parameter, Choice):
        values = parameter.values
        if anew:
            return rng.choice(values)
        place = next(i for i, own in enumerate(values) if same(own, value)) + rng.choice((-1, 1))
        return values[min(max(place, 0), len(values) - 1)]
    return parameter.sample(rng) if anew else parameter.nearest(value * rng.choice(training.factors))


def faults(
    search: Search,
    stop: Stop,
    objectives: Sequence[Objective],
    space: SearchSpace,
    fixed: Mapping[str, Any],
) -> Iterator[Fault]:
    """Rules between population-based training and the rest of a spec."""
    rule = "with population-based training"
    if search.sampler not in ("random", "quasi-random", "grid"):
        message = f"need random, quasi-random or grid {rule}, whose first points know no results, got {search.sampler}"
        yield Fault(("search", "sampler"), message)
    if search.trials < 2:
        yield Fault(("search", "trials"), f"need at least 2 {rule}: they learn from each other; got {search.trials}")
    if search.repeats > 1:
        yield Fault(("search", "repeats"), f"need 1 {rule}, where trials leave their points, got {search.repeats}")
    if search.warm_start:
        message = f"need none {rule}, whose first points know no results, got {len(search.warm_start)}"
        yield Fault(("search", "warm_start"), message)
    if stop.pruner != "none":
        message = f"need none {rule}: it makes better what a pruner would end; got {stop.pruner}"
        yield Fault(("stop", "pruner"), message)
    if stop.patience is not None or fixed.get("train.patience") is not None:
        place = ("stop", "patience") if stop.patience is not None else ("fixed", "train.patience")
        patience = stop.patience if stop.patience is not None else fixed["train.patience"]
        yield Fault(place, f"need null {rule}: a trial that gets no better goes on from a better one; got {patience}")
    if stop.time_budget is not None:
        message = f"need null {rule}: its trials end together, and before that none has a value; got {stop.time_budget}"
        yield Fault(("stop", "time_budget"), message)
    if len(objectives) > 1:
        yield Fault(("objectives",), f"need one {rule}, got {len(objectives)}")
    if not space:
        yield Fault(("space",), f"need at least one setting to change {rule}, got none")
    for name, parameter in space.items():
        if name not in CHANGEABLE:
            message = f"cannot change while a trial runs: need it fixed {rule}, which changes {', '.join(CHANGEABLE)}"
            yield Fault(("space", name), message)
        elif parameter.when:
            condition = next(iter(parameter.when))
            yield Fault(("space", name, "when"), f"need no condition {rule}, got one on {condition}")
