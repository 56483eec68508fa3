"""What can be done with sweeps. Functions over ports; each may be called again after a crash at any point of it."""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from service.domain import (
    Conflict,
    IllegalMove,
    Job,
    ModelVersion,
    Sweep,
    SweepState,
    Trial,
    TrialState,
)
from service.each_sweep import each_sweep
from service.ports import Clock, Launcher, Store
from service.spec import SweepSpec

logger = logging.getLogger(__name__)

GRACE = timedelta(seconds=10)
"""What a driver gets to end by itself after a request to stop."""
MAX_ATTEMPTS = 5
"""Drivers of one sweep that may die."""


def new_sweep_id() -> str:
    """Eight characters of lower-case base32, at random."""
    return base64.b32encode(secrets.token_bytes(5)).decode().lower()


def create(store: Store, spec: Any, *, clock: Clock, new_id: Callable[[], str] = new_sweep_id) -> Sweep:
    """Queues the sweep that a document describes; `reconcile` launches it.

    Raises:
        InvalidSpec: with every fault of the document.
    """
    checked = SweepSpec.from_dict(spec)
    sweep = Sweep(id=new_id(), name=checked.name, spec=checked.to_dict(), created_at=clock.now())
    store.add_sweep(sweep)
    return store.sweep(sweep.id)


def stop(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Ends the sweep: at once where it is queued, through its driver where it runs. Again changes nothing.

    Raises:
        Conflict: it has ended already.
    """
    while True:
        sweep = store.sweep(sweep_id)
        if sweep.state is SweepState.STOPPING:
            return sweep
        if sweep.state.final:
            raise Conflict(f"sweep {sweep_id} is {sweep.state} and cannot be stopped")
        state = SweepState.STOPPED if sweep.state is SweepState.QUEUED else SweepState.STOPPING
        try:
            return store.move_sweep(sweep_id, state, at=clock.now(), reason="stopped on request")
        except IllegalMove:
            logger.info("sweep %s moved while it was being stopped; looking again", sweep_id)


def leaderboard(store: Store, sweep_id: str, *, limit: int | None = None) -> list[Trial]:
    """The sweep's completed trials by its first objective, best first; equals by number."""
    return store.best_trials(sweep_id, mode=_mode(store.sweep(sweep_id)), limit=limit)


def offer_champion(store: Store, trial_id: str, *, at: datetime) -> ModelVersion | None:
    """Makes a completed trial the champion of its sweep's name, if it deserves it, and returns its version.

    Where the present champion was judged as this sweep judges (same objective, same data), the better value wins, and
    the champion stays on a tie. Values of other objectives or data do not compare: there the champion of an earlier
    sweep yields to any trial of a later one, and never the other way round.
    """
    trial = store.trial(trial_id)
    if trial.state is not TrialState.COMPLETED or trial.checkpoint is None:
        return None
    assert trial.values, "a completed trial has values"
    sweep = store.sweep(trial.sweep_id)
    while True:
        champion = next(iter(store.model_versions(sweep.name)), None)
        if champion is not None and champion.trial_id == trial_id:
            return champion
        if champion is not None and not _deserves(trial.values[0], sweep, champion, store.sweep(champion.sweep_id)):
            return None
        try:
            return store.add_model_version(
                name=sweep.name,
                sweep_id=sweep.id,
                trial_id=trial_id,
                value=trial.values[0],
                path=f"{trial.checkpoint}/model",
                at=at,
                after=champion.version if champion is not None else 0,
            )
        except Conflict:
            logger.info("another trial became champion of %s meanwhile; comparing with that one", sweep.name)


def reconcile(store: Store, launcher: Launcher, *, clock: Clock, max_running_sweeps: int = 4) -> None:
    """One look at every sweep that has not ended, from the oldest on: what should run is launched, what died is ended.

    A queued sweep is launched when fewer than `max_running_sweeps` have a driver. A driver that died is followed by
    another, up to `MAX_ATTEMPTS`; a job that the cluster does not know never began or was lost with the cluster, and is
    launched again as the same attempt, since ids of attempts are unique. A driver that does not stop is stopped.

    Raises:
        Unavailable: at the end, if the cluster or the store did not answer for some; the next pass tries again.
    """
    active = store.sweeps(states=[state for state in SweepState if not state.final])
    free = max_running_sweeps - sum(sweep.attempt > 0 for sweep in active)

    def tend(sweep: Sweep) -> None:
        nonlocal free
        try:
            if sweep.attempt > 0:
                _tend(store, launcher, clock, sweep)
            elif free > 0:
                free -= 1
                _launch_next(store, launcher, sweep)
        except Conflict as error:  # another process saw to this sweep in the same moment
            logger.info("leaving sweep %s to the next pass: %s", sweep.id, error)

    each_sweep(reversed(active), tend)


def _tend(store: Store, launcher: Launcher, clock: Clock, seen: Sweep) -> None:
    """Sees to a sweep that has had a driver."""
    job = launcher.job(seen.id, seen.attempt)
    if job.alive:
        if seen.state is SweepState.STOPPING and seen.moved_at is not None and clock.now() - seen.moved_at >= GRACE:
            logger.warning("the driver of sweep %s did not stop within %s; stopping it", seen.id, GRACE)
            launcher.stop(seen.id, seen.attempt)
        return
    # A driver writes the end of its sweep before it ends itself: only what the store says now tells whether it did.
    sweep = store.sweep(seen.id)
    if sweep.state.final or sweep.attempt != seen.attempt:
        return
    for trial in leaderboard(store, sweep.id, limit=1):  # the driver may have died before it offered this one
        offer_champion(store, trial.id, at=clock.now())
    if sweep.state is SweepState.STOPPING:
        _end(store, clock, sweep, SweepState.STOPPED, "stopped on request")
    elif job.state == "missing":
        logger.info("launching driver %d of sweep %s: the cluster does not know it", sweep.attempt, sweep.id)
        launcher.launch(sweep.id, sweep.attempt)
    elif sweep.attempt < MAX_ATTEMPTS:
        logger.warning("driver %d of sweep %s died (%s)", sweep.attempt, sweep.id, _last_words(job))
        _launch_next(store, launcher, sweep)
    else:
        reason = f"the driver died {sweep.attempt} times, the last time with: {_last_words(job)}"
        _end(store, clock, sweep, SweepState.FAILED, reason)


def _launch_next(store: Store, launcher: Launcher, sweep: Sweep) -> None:
    # Counted before it is launched: whoever dies in between leaves an attempt that the cluster does not know.
    attempt = store.count_attempt(sweep.id, after=sweep.attempt)
    logger.info("launching driver %d of sweep %s", attempt, sweep.id)
    launcher.launch(sweep.id, attempt)


def _end(store: Store, clock: Clock, sweep: Sweep, state: SweepState, reason: str) -> None:
    """Ends a sweep in place of its dead driver, the sweep itself last, so that the next pass can do what is left."""
    at = clock.now()
    ended = TrialState.STOPPED if state is SweepState.STOPPED else TrialState.FAILED
    for trial in store.trials(sweep.id, states=[TrialState.RUNNING]):
        store.finish_trial(trial.id, ended, at=at, reason=reason)
    store.move_sweep(sweep.id, state, at=at, reason=reason)


def _last_words(job: Job) -> str:
    return job.message or job.state


def _mode(sweep: Sweep) -> Literal["min", "max"]:
    mode: Literal["min", "max"] = sweep.spec["objectives"][0]["mode"]
    return mode


def _deserves(value: float, sweep: Sweep, champion: ModelVersion, champions: Sweep) -> bool:
    if _judged_by(sweep.spec) == _judged_by(champions.spec):
        return value > champion.value if _mode(sweep) == "max" else value < champion.value
    return (champions.created_at, champions.id) < (sweep.created_at, sweep.id)


def _judged_by(spec: Mapping[str, Any]) -> tuple[object, ...]:
    """What two sweeps must share for their values to compare: the objective and every setting of the data."""
    fixed, searched = (
        {name.removeprefix("data."): value for name, value in spec[part].items() if name.startswith("data.")}
        for part in ("fixed", "space")
    )
    return spec["objectives"][0], {**spec["data"], **fixed}, searched
