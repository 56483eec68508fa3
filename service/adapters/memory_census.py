"""How many there are of what, in memory. See `memory_store`, which calls under its lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from service.domain import Sweep, SweepState, Trial
from service.port_values import Census


def census(sweeps: Mapping[str, Sweep], trials: Mapping[str, Trial]) -> Census:
    """As `ports.Store.census`, of all sweeps and trials by their ids."""
    running = Counter(trial.sweep_id for trial in trials.values() if not trial.state.final)
    queued = [one.moved_at or one.created_at for one in sweeps.values() if one.state is SweepState.QUEUED]
    return Census(
        sweeps=Counter(sweep.state for sweep in sweeps.values()),
        trials=Counter(trial.state for trial in trials.values()),
        queued_since=min(queued, default=None),
        untracked=sum(sweep.last_event - sweep.tracked for sweep in sweeps.values()),
        gpus=sum(sweeps[one].spec["resources"]["gpus"] * count for one, count in running.items()),
    )
