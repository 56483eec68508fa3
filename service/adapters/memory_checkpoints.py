"""Who starts from whose checkpoints, in memory. See `memory_store`, which calls under its lock."""

from __future__ import annotations

from collections.abc import Mapping

from service.domain import Sweep, SweepState, Trial
from service.errors import Conflict


def starts_another(sweeps: Mapping[str, Sweep], trial_id: str) -> bool:
    """A sweep that is not being deleted starts from the trial."""
    return any(trial_id in one.starts_from for one in sweeps.values() if one.state is not SweepState.DELETING)


def check_starts(sweeps: Mapping[str, Sweep], trials: Mapping[str, Trial], sweep: Sweep) -> None:
    """Raises Conflict where a trial that the sweep starts from is gone or goes, or its weights have been removed."""
    for trial_id in sorted(sweep.starts_from):
        trial = trials.get(trial_id)
        if trial is None or sweeps[trial.sweep_id].state is SweepState.DELETING:
            raise Conflict(f"trial {trial_id} is deleted with its sweep")
        if trial.weights == "removed":
            raise Conflict(trial.no_weights)


def check_unneeded(sweeps: Mapping[str, Sweep], trials: Mapping[str, Trial], sweep_id: str) -> None:
    """Raises Conflict where a sweep that has not ended starts from a trial of this one."""
    for other in sweeps.values():
        if other.state.final or other.state is SweepState.DELETING:
            continue
        for trial_id in sorted(other.starts_from & trials.keys()):
            if trials[trial_id].sweep_id == sweep_id:
                raise Conflict(f"sweep {other.id} starts from trial {trial_id}, and has not ended")
