"""What earlier sweeps found, for a search that starts warm."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from search_spaces import SpaceError
from service.domain import TrialState
from service.errors import NotFound
from service.points import Known, ranked
from service.ports import Store
from service.spec import SweepSpec
from trainables.config import Fault

logger = logging.getLogger(__name__)

LEARNING = ("gp", "nsga-ii", "tpe")
"""Samplers that choose by what is known; `cma-es` goes by the points of its own generations alone."""


def faults(spec: SweepSpec, store: Store) -> Iterator[Fault]:
    """Sweeps to start from that are not there, or whose values say nothing of this one's, or to its sampler."""
    sampler, sources = spec.search.sampler, spec.search.warm_start
    if sources and sampler not in LEARNING:
        message = f"need one of {', '.join(LEARNING)} as the sampler, which learn from earlier sweeps, got {sampler}"
        yield Fault(("search", "warm_start"), message)
    for i, sweep_id in enumerate(sources):
        if sweep_id in sources[:i]:
            yield Fault(("search", "warm_start", i), f"need sweeps that differ, got {sweep_id} again")
            continue
        try:
            theirs = SweepSpec.from_dict(store.sweep(sweep_id).spec)
        except NotFound as error:
            yield Fault(("search", "warm_start", i), f"refers to nothing: {error}")
            continue
        if theirs.search.pbt is not None:
            message = f"need a sweep whose trials keep their settings, sweep {sweep_id} is of population-based training"
            yield Fault(("search", "warm_start", i), message)
        elif theirs.family != spec.family:
            message = f"need a sweep of {spec.family}, sweep {sweep_id} is of {theirs.family}"
            yield Fault(("search", "warm_start", i), message)
        elif theirs.objectives != spec.objectives:
            asked = ", ".join(objective.metric for objective in theirs.objectives)
            yield Fault(("search", "warm_start", i), f"need the same objectives, sweep {sweep_id} has {asked}")


def known(spec: SweepSpec, store: Store, *, by: datetime | None = None) -> list[Known]:
    """The completed points of those sweeps that are points of this space too, with their values.

    A parameter of this space is looked up among their searched, fixed and data settings. A sweep that has been deleted
    since is passed over.

    Args:
        spec: of the sweep that starts from them.
        store: has them.
        by: what they completed later is left out, so that every driver of a sweep knows the same; None: nothing is.
    """
    found: list[Known] = []
    for sweep_id in spec.search.warm_start:
        try:
            theirs = SweepSpec.from_dict(store.sweep(sweep_id).spec)
            completed = store.trials(sweep_id, states=[TrialState.COMPLETED])
        except NotFound:
            logger.warning("sweep %s, from which this one should start, is not there any more", sweep_id)
            continue
        trials = [one for one in completed if by is None or (one.finished_at is not None and one.finished_at <= by)]
        modes = [objective.mode for objective in theirs.objectives]
        given = {**{f"data.{name}": value for name, value in theirs.data.items()}, **theirs.fixed}
        for one in sorted(
            ranked(trials, modes=modes, aggregate=theirs.search.aggregate), key=lambda result: result.number
        ):
            point = _fitting(spec, {**given, **one.point})
            if point is not None:
                found.append(Known(point, one.values))
    return found


def _fitting(spec: SweepSpec, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    point: dict[str, Any] = {}
    for name in spec.space:
        if spec.space.is_active(name, point) and name in settings:
            point[name] = settings[name]
    try:
        spec.space.check(point)
    except SpaceError:
        return None
    return point
