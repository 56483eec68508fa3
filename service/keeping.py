"""Which checkpoints a sweep keeps, and the removal of the others as it goes.

A checkpoint is removed in two steps: the store forgets it, unless somebody needs it, and then its folder goes. Whoever
dies in between leaves a folder that the store has forgotten; the next `tidy` removes it.
"""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.domain import Trial, TrialState
from service.points import first_number, ranked
from service.ports import Store

logger = logging.getLogger(__name__)


def expendable(trials: Iterable[Trial], spec: Mapping[str, Any]) -> list[Trial]:
    """Those of the trials whose checkpoints the sweep itself has no more use for, by number.

    It keeps those of trials that may go on, of its best `resources.keep_best` points by the first objective, of the
    Pareto front where it has several, and of the point with the best single trial, which becomes the model. A point of
    which another trial may still complete is not judged: its place is not known yet.

    What is expendable stays so, whatever other trials come to, and a point's trials are so together: asking about those
    that were not expendable the last time, and about new ones, gives the same as asking about all.
    """
    keep, repeats = spec["resources"].get("keep_best"), spec["search"].get("repeats", 1)
    if keep is None:  # it shall keep all, or was made by a version that did
        return []
    points: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        points[first_number(trial)].append(trial)
    pruned = [group for group in points.values() if all(one.state is TrialState.PRUNED for one in group)]
    whole = [group for group in points.values() if sum(one.state is TrialState.COMPLETED for one in group) == repeats]
    modes = [objective["mode"] for objective in spec["objectives"]]
    results = ranked(
        (one for group in whole for one in group), modes=modes, aggregate=spec["search"].get("aggregate", "mean")
    )
    sign = -1.0 if modes[0] == "max" else 1.0
    kept = {one.number for one in sorted(results, key=lambda one: (sign * one.values[0], one.number))[:keep]}
    kept |= {min(results, key=lambda one: (sign * one.best[0], one.number)).number} if results else set()
    kept |= {one.number for one in results if one.front == 1} if len(modes) > 1 else set()
    gone = [*pruned, *(group for group in whole if first_number(group[0]) not in kept)]
    return sorted((one for group in gone for one in group), key=lambda one: one.number)


def remove_checkpoint(store: Store, trial_id: str, folder: Path) -> None:
    """Removes the trial's checkpoint, unless somebody needs it; `folder` has a folder a trial."""
    if not store.forget_checkpoint(trial_id):
        return
    try:
        while (folder / trial_id).exists():
            with suppress(FileNotFoundError):  # another process removes it too
                shutil.rmtree(folder / trial_id)
    except OSError as error:
        logger.warning("leaving what is left of trial %s to the next time: %s", trial_id, error)


def tidy(store: Store, sweep_id: str, folder: Path) -> None:
    """Removes every checkpoint that is needed no more, and what earlier removals left when they were interrupted."""
    for trial in expendable(store.trials(sweep_id), store.sweep(sweep_id).spec):
        if trial.weights == "kept" or (folder / trial.id).exists():
            remove_checkpoint(store, trial.id, folder)
