"""Bringing the tracker up to date with the store."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from service.domain import Sweep, SweepState
from service.each_sweep import each_sweep
from service.errors import NotFound
from service.keeping import tidy
from service.ports import Store, Tracker


def drain(store: Store, tracker: Tracker, *, batch: int = 500) -> int:
    """Sends the tracker every event that it lacks, up to `batch` at a time, and returns how many those were.

    The cursor of a sweep moves only after the tracker has taken the events, so that none is lost whatever dies; those
    sent last may then be sent again. A sweep that cannot be shown does not hold up the others.

    Raises:
        Unavailable: at the end, if some could not be shown; the next pass goes on from there.
    """
    sent = 0

    def show(sweep: Sweep) -> None:
        nonlocal sent
        tracked = sweep.tracked
        while tracked < sweep.last_event:  # as it was when the pass began: a busy sweep cannot keep it going for ever
            events = store.events(sweep.id, after=tracked, limit=batch)
            tracker.track(sweep, events)
            tracked = events[-1].number
            store.set_tracked(sweep.id, tracked)
            sent += len(events)

    each_sweep([sweep for sweep in store.untracked() if sweep.state is not SweepState.DELETING], show)
    return sent


def remove(store: Store, tracker: Tracker, *, sweeps_root: Path) -> None:
    """Removes the sweeps that are being deleted: from the tracker, their folders, and last from the store.

    Checkpoints of other sweeps that only they needed go with them.

    Raises:
        Unavailable: at the end, if the tracker still shows some; the next pass tries again.
    """

    def gone(sweep: Sweep) -> None:
        tracker.forget(sweep)
        with suppress(FileNotFoundError):
            shutil.rmtree(sweeps_root / sweep.id)
        for trial_id in sweep.starts_from:
            with suppress(NotFound):
                other = store.trial(trial_id).sweep_id
                tidy(store, other, sweeps_root / other / "trials")
        store.delete_sweep(sweep.id)

    each_sweep(store.sweeps(states=[SweepState.DELETING]), gone)
