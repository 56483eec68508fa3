"""Launching what should run, and ending what died; it may be done again after a crash at any point of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import final

from service.domain import Sweep, SweepState, TrialState
from service.each_sweep import each_sweep
from service.errors import Conflict
from service.keeping import tidy
from service.port_values import Job
from service.ports import Clock, Launcher, Store
from service.sweeps import best_trials, offer_champion

logger = logging.getLogger(__name__)

GRACE = timedelta(seconds=10)
"""What a driver gets to end by itself after a request to cancel."""
MAX_DEATHS = 5
"""A sweep has failed when so many of its drivers have died without a step of a trial in between."""
ENDS = {
    SweepState.PAUSING: (SweepState.PAUSED, TrialState.PAUSED, "paused on request"),
    SweepState.STOPPING: (SweepState.STOPPED, TrialState.STOPPED, "stopped on request"),
    SweepState.CANCELLING: (SweepState.STOPPED, TrialState.STOPPED, "cancelled on request"),
}
"""What becomes of a sweep that was about to end, and of its unfinished trials, when its driver has died."""


def reconcile(
    store: Store,
    launcher: Launcher,
    *,
    clock: Clock,
    trials_folder: Callable[[str], Path],
    max_running_sweeps: int = 4,
    refused: dict[str, int] | None = None,
) -> None:
    """One look at every sweep that has a driver or waits for one: what should run is launched, what died is ended.

    Queued sweeps are launched while fewer than `max_running_sweeps` have a driver, in the order of the store's `queue`.
    A driver that died is followed by another, up to `MAX_DEATHS`. A job that the cluster does not know never began, and
    is launched again as the same attempt, since ids of attempts are unique; or it was lost with the cluster, and then
    another one follows that it yields to, should it still run. A driver that does not cancel is stopped.

    Several processes may do this at once: whoever has counted an attempt launches it, and nobody ends a sweep that has
    had another driver since.

    Args:
        store: has the sweeps.
        launcher: runs their drivers.
        clock: gives every change its time.
        trials_folder: where the trials of a sweep keep their checkpoints.
        max_running_sweeps: see above.
        refused: kept from pass to pass: by sweep, the attempt that the cluster did not take. It keeps its number,
            however often it is refused.

    Raises:
        Unavailable: at the end, if the cluster or the store did not answer for some; the next pass tries again.
    """
    queued = store.queue(limit=max_running_sweeps)  # read first: what is launched meanwhile is then seen as both
    driven = store.sweeps(states=[state for state in SweepState if state.driven])[::-1]
    free = max(0, max_running_sweeps - len(driven))
    launched = {sweep.id for sweep in driven}
    next_ones = [sweep for sweep in queued if sweep.id not in launched][:free]
    launches = _Launches(store, launcher, clock, {} if refused is None else refused)

    def tend(sweep: Sweep) -> None:
        try:
            if sweep.state.driven:
                _tend(store, launcher, clock, sweep, trials_folder, launches)
            else:
                launches.next(sweep)
        except Conflict as error:  # another process, or the user, saw to this sweep in the same moment
            logger.info("leaving sweep %s to the next pass: %s", sweep.id, error)

    each_sweep([*driven, *next_ones], tend)


def waiting_for(store: Store, sweep: Sweep, *, max_running_sweeps: int) -> str:
    """Why the sweep does not run yet; empty where it does, or has ended."""
    if sweep.state is SweepState.STARTING:
        return "" if sweep.reason else "its driver starts"  # the driver has said why it does not
    if sweep.state is not SweepState.QUEUED:
        return ""
    ahead = store.ahead(sweep.id)
    if ahead.driven + ahead.queued < max_running_sweeps:
        return "it is about to be launched"
    limit = f"{ahead.driven} sweeps run, of {max_running_sweeps} that may (SWEEPSERVE_MAX_RUNNING_SWEEPS)"
    return f"{limit}; {ahead.queued} of those that wait come first"


@final
class _Launches:
    """Launches drivers, each under a number of its own."""

    def __init__(self, store: Store, launcher: Launcher, clock: Clock, refused: dict[str, int]) -> None:
        self._store, self._launcher, self._clock, self._refused = store, launcher, clock, refused

    def next(self, sweep: Sweep, *, died: bool = False) -> None:
        """The sweep's next driver. `died`: the last one did."""
        # Counted before it is launched: whoever dies in between leaves an attempt that the cluster does not know.
        attempt = self._store.count_attempt(sweep.id, after=sweep.attempt, died=died)
        if sweep.state is SweepState.QUEUED:
            self._store.move_sweep(sweep.id, SweepState.STARTING, at=self._clock.now())
        self._launch(sweep, attempt)

    def lost(self, sweep: Sweep) -> None:
        """One of which the cluster knows nothing.

        It never began, or it may still run somewhere, cut off from its cluster, and yields to another number.
        """
        if sweep.state is SweepState.STARTING or self._refused.get(sweep.id) == sweep.attempt:
            self._launch(sweep, sweep.attempt)
        else:
            logger.warning("the cluster has lost driver %d of sweep %s", sweep.attempt, sweep.id)
            self.next(sweep)

    def _launch(self, sweep: Sweep, attempt: int) -> None:
        logger.info("launching driver %d of sweep %s", attempt, sweep.id)
        self._refused[sweep.id] = attempt
        self._launcher.launch(sweep.id, attempt, trace=sweep.trace)
        del self._refused[sweep.id]


def _tend(
    store: Store,
    launcher: Launcher,
    clock: Clock,
    seen: Sweep,
    trials_folder: Callable[[str], Path],
    launches: _Launches,
) -> None:
    """Sees to a sweep that has a driver."""
    job = launcher.job(seen.id, seen.attempt)
    if job.alive:
        asked = seen.moved_at if seen.state is SweepState.CANCELLING else None
        # A request in the future is one from before a clock was put back: nobody knows how long ago.
        if asked is not None and not asked <= clock.now() < asked + GRACE:
            logger.warning("the driver of sweep %s did not cancel within %s; stopping it", seen.id, GRACE)
            launcher.stop(seen.id, seen.attempt)
        return
    # A driver writes the end of its sweep before it ends itself: only what the store says now tells whether it did.
    sweep = store.sweep(seen.id)
    if not sweep.state.driven or sweep.attempt != seen.attempt:
        return
    for trial in best_trials(store, sweep.id, limit=1):  # the driver may have died before it offered this one
        offer_champion(store, trial.id, at=clock.now())
    tidy(store, sweep.id, trials_folder(sweep.id))  # and before it removed what is needed no more
    if sweep.state in ENDS:
        _end(store, clock, sweep, *ENDS[sweep.state])
    elif job.state == "missing":
        launches.lost(sweep)
    elif sweep.deaths + 1 < MAX_DEATHS:
        logger.warning("driver %d of sweep %s died (%s)", sweep.attempt, sweep.id, _last_words(job))
        launches.next(sweep, died=True)
    else:
        often = f"{sweep.deaths + 1} times without a result in between"
        reason = f"the driver died {often}, the last time with: {_last_words(job)}"
        _end(store, clock, sweep, SweepState.FAILED, TrialState.FAILED, reason)


def _end(store: Store, clock: Clock, sweep: Sweep, state: SweepState, trials: TrialState, reason: str) -> None:
    """Ends a sweep, and its unfinished trials with it, in place of its dead driver."""
    unfinished = [TrialState.RUNNING] if trials is TrialState.PAUSED else [TrialState.RUNNING, TrialState.PAUSED]
    moves = dict.fromkeys(unfinished, trials)
    store.move_sweep(sweep.id, state, at=clock.now(), reason=reason, seen=sweep, trial_moves=moves)


def _last_words(job: Job) -> str:
    return job.message or job.state
