"""What a user may do to a sweep that is there. Each may be asked again after a crash at any point of it.

A verb moves a sweep and its trials at once, so that what is asked for in the same moment comes before or after it.
It writes to the store what shall be and returns; the driver, or the reconciler where there is none, makes it so.
Resuming, extending and retrying are one mechanism: the sweep is queued again, and its next driver rebuilds everything
from the store, goes on with unfinished trials from their checkpoints, and asks for new ones until there are enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from search_spaces import merged
from service.domain import Sweep, SweepState, TrialState
from service.errors import Conflict, InvalidSpec
from service.plan import Stop
from service.ports import Clock, Store
from service.spec import SweepSpec
from trainables.config import Fault

logger = logging.getLogger(__name__)

Verb = Literal["stop", "cancel", "pause", "resume", "extend", "retry", "delete"]
S = SweepState
TO_QUEUE = dict.fromkeys((S.COMPLETED, S.STOPPED, S.FAILED), S.QUEUED)
VERBS: Mapping[Verb, Mapping[SweepState, SweepState]] = {
    "stop": {
        S.QUEUED: S.STOPPED,
        S.STARTING: S.STOPPING,
        S.RUNNING: S.STOPPING,
        S.PAUSING: S.STOPPING,
        S.PAUSED: S.STOPPED,
        S.STOPPING: S.STOPPING,
        S.CANCELLING: S.CANCELLING,
    },
    "cancel": {
        S.QUEUED: S.STOPPED,
        S.STARTING: S.CANCELLING,
        S.RUNNING: S.CANCELLING,
        S.PAUSING: S.CANCELLING,
        S.PAUSED: S.STOPPED,
        S.STOPPING: S.CANCELLING,
        S.CANCELLING: S.CANCELLING,
    },
    "pause": {
        S.QUEUED: S.PAUSED,
        S.STARTING: S.PAUSING,
        S.RUNNING: S.PAUSING,
        S.PAUSING: S.PAUSING,
        S.PAUSED: S.PAUSED,
    },
    "resume": {
        S.PAUSED: S.QUEUED,
        S.STOPPED: S.QUEUED,
        S.QUEUED: S.QUEUED,
        S.STARTING: S.STARTING,
        S.RUNNING: S.RUNNING,
    },
    "extend": {
        S.QUEUED: S.QUEUED,
        S.STARTING: S.STARTING,
        S.RUNNING: S.RUNNING,
        S.PAUSED: S.PAUSED,
        **TO_QUEUE,
    },
    "retry": {S.PAUSED: S.QUEUED, **TO_QUEUE},
    "delete": {
        **dict.fromkeys((S.QUEUED, S.PAUSED, S.COMPLETED, S.STOPPED, S.FAILED, S.DELETING), S.DELETING),
    },
}
"""What each verb makes of a sweep in each state; a state that is not here is a Conflict."""
DONE: Mapping[Verb, str] = {
    "stop": "stopped",
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "extend": "extended",
    "retry": "retried",
    "delete": "deleted",
}


def stop(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Ends the sweep: its running trials end at their next report, and what they reached is kept.

    Raises:
        Conflict: as by `VERBS`, like every verb.
    """
    return _do(store, sweep_id, "stop", clock, "stopped on request")


def cancel(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Ends the sweep and its running trials at once; their last checkpoints are kept."""
    return _do(store, sweep_id, "cancel", clock, "cancelled on request")


def pause(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Begins no more trials; those that run end at their next report, and go on from there when it is resumed."""
    return _do(store, sweep_id, "pause", clock, "paused on request")


def resume(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Goes on with a sweep that was paused or stopped, and with its unfinished trials.

    Raises:
        Conflict: also where its time budget is used up.
    """
    return _do(store, sweep_id, "resume", clock, "resumed on request")


def retry(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Runs the failed trials again, from their checkpoints where they have any.

    Raises:
        Conflict: also where no trial has failed, unless the whole sweep has, or its time budget is used up.
    """
    sweep = store.sweep(sweep_id)
    if sweep.state is not S.FAILED and not store.trials(sweep_id, states=[TrialState.FAILED]):
        _next(sweep, "retry")
        raise Conflict(f"sweep {sweep_id} has no failed trials to retry")
    return _do(store, sweep_id, "retry", clock, "retried on request")


def delete(store: Store, sweep_id: str, *, clock: Clock) -> Sweep:
    """Removes the sweep with all that belongs to it, soon after; what runs must be stopped before.

    Raises:
        Conflict: also where a sweep that has not ended starts from one of its trials.
    """
    return _do(store, sweep_id, "delete", clock, "deleted on request")


def extend(
    store: Store, sweep_id: str, *, clock: Clock, trials: int | None = None, time_budget: str | None = None
) -> Sweep:
    """Gives the sweep more trials or more time: so many, and so much, in all.

    One that has ended goes on, with the trials that its end stopped; one that runs hears of it.

    Raises:
        InvalidSpec: they are fewer, or less, than it has now, or more than there are.
        Conflict: also where its time budget would be used up still.
    """
    changes: dict[str, Any] = {}
    if trials is not None:
        changes["search"] = {"trials": trials}
    if time_budget is not None:
        changes["stop"] = {"time_budget": time_budget}

    def extended(old: Mapping[str, Any]) -> Mapping[str, Any]:
        new = SweepSpec.from_dict(merged(old, changes)).to_dict()
        _check_extension(old, new, changes)
        return new

    return _do(store, sweep_id, "extend", clock, "extended on request", extended)


def _check_extension(old: Mapping[str, Any], new: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    if not changes:
        raise InvalidSpec([Fault((), "need trials, or time_budget, or both: so many in all")])
    faults = []
    before, after = old["search"]["trials"], new["search"]["trials"]
    if after != before and new["search"].get("pbt") is not None:
        faults.append(Fault(("trials",), f"need the {before} of its population, which all train together, got {after}"))
    elif after < before:
        faults.append(Fault(("trials",), f"need at least the {before} that it has, got {after}"))
    seconds = [Stop.from_dict(spec["stop"]).time_budget_seconds for spec in (old, new)]
    if "stop" in changes and (seconds[0] is None or (seconds[1] or 0) < seconds[0]):
        has = "no limit" if seconds[0] is None else old["stop"]["time_budget"]
        faults.append(Fault(("time_budget",), f"need at least what it has, {has}, got {new['stop']['time_budget']}"))
    if faults:
        raise InvalidSpec(faults)


def _do(
    store: Store,
    sweep_id: str,
    verb: Verb,
    clock: Clock,
    reason: str,
    changed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda spec: spec,
) -> Sweep:
    """Does it to the sweep as it was when it was looked at, or looks again."""
    while True:
        sweep = store.sweep(sweep_id)
        state, spec = _next(sweep, verb), changed(sweep.spec)
        if spec != sweep.spec or (state is S.QUEUED and sweep.state is not S.QUEUED):
            _check_time(sweep, spec, clock)
        try:
            if spec != sweep.spec:
                sweep = store.change_spec(sweep_id, spec, seen=sweep, at=clock.now())
            if state is sweep.state:
                return sweep
            trial_moves = _trial_moves(verb, state)
            return store.move_sweep(
                sweep_id, state, at=clock.now(), reason=reason, after=sweep.state, trial_moves=trial_moves
            )
        except Conflict:
            now = store.sweep(sweep_id)
            if (now.state, now.revision) == (sweep.state, sweep.revision):
                raise
            logger.info("sweep %s was changed while it was being %s; looking again", sweep_id, DONE[verb])


def _next(sweep: Sweep, verb: Verb) -> SweepState:
    if sweep.state not in VERBS[verb]:
        raise Conflict(f"sweep {sweep.id} is {sweep.state} and cannot be {DONE[verb]}")
    return VERBS[verb][sweep.state]


def _check_time(sweep: Sweep, spec: Mapping[str, Any], clock: Clock) -> None:
    """A driver would end it before any trial goes on, and those that failed would be stopped without their reasons."""
    stop = Stop.from_dict(spec["stop"])
    if stop.time_budget_seconds is not None and sweep.seconds_run(clock.now()) >= stop.time_budget_seconds:
        raise Conflict(
            f"sweep {sweep.id} has used up its time budget of {stop.time_budget}: extend it by a larger time_budget"
        )


def _trial_moves(verb: Verb, state: SweepState) -> Mapping[TrialState, TrialState]:
    """What becomes of the trials of a sweep without a driver, which would see to them."""
    if state is S.QUEUED:  # what its end stopped goes on with it
        again = (TrialState.STOPPED, TrialState.FAILED) if verb == "retry" else (TrialState.STOPPED,)
        return dict.fromkeys(again, TrialState.PAUSED)
    if state is S.STOPPED:
        return dict.fromkeys((TrialState.RUNNING, TrialState.PAUSED), TrialState.STOPPED)
    return {}
