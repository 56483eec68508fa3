"""Driving one sweep from where the store says it is to its end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from service.adapters.optuna_search import Search
from service.domain import Sweep, SweepState, Trial, TrialState
from service.driver.log import keep_log
from service.driver.recorder import PAUSE_SECONDS, Recorder
from service.driver.repeats import as_points
from service.driver.run import Run
from service.driver.spread import spread
from service.driver.tune import Engine
from service.errors import Conflict, IllegalMove, Unavailable
from service.plan import Stop
from service.points import Known
from service.ports import Clock, Store
from service.references import referenced_weights
from service.settings import Settings
from service.spec import SweepSpec
from service.warm_start import known

logger = logging.getLogger(__name__)
T = TypeVar("T")

POLL_SECONDS = 1.0
"""Between two looks at whether the sweep shall stop."""
GRACE_SECONDS = 2.0
"""What a stopped sweep's workers get to end by themselves, so that a step that is nearly done is kept."""
CLEANUP_SECONDS = 5.0
"""What Tune gets to tidy up after its workers were killed."""
PROGRESS_SECONDS = 0.5
"""Between two events about data being made."""
NODE_SECONDS = 300.0
"""What a cluster gets to have a node that holds a trial: after a restart of its head, workers come back one by one."""


class Superseded(Exception):  # noqa: N818 - it says what is the matter
    """The sweep has a newer driver: Ray believed this one dead. What is left of the sweep is the other's."""


def drive(sweep_id: str, attempt: int, *, store: Store, settings: Settings, clock: Clock) -> SweepState:
    """Runs the sweep, or what is left of it, and returns its final state. Ray must be connected.

    Args:
        sweep_id: which sweep.
        attempt: which of its drivers this is, as whoever launched it said: the store may know a later one by now.
        store: has the sweep.
        settings: where everything is.
        clock: gives every change its time.

    Raises:
        NotFound: there is no such sweep.
        Superseded: another driver has it now; this process should end, and touch nothing.
    """
    sweep = _insist(lambda: store.sweep(sweep_id), clock)
    _check_attempt(sweep, attempt)
    keep_log(settings.driver_log(sweep_id, attempt))
    if sweep.state in (SweepState.QUEUED, SweepState.STARTING):
        with suppress(IllegalMove):  # somebody has just asked for its end
            _insist(lambda: store.move_sweep(sweep_id, SweepState.RUNNING, at=clock.now()), clock)
    while True:
        sweep = _insist(lambda: store.sweep(sweep_id), clock)
        if not sweep.state.driven:
            logger.info("sweep %s is %s already", sweep_id, sweep.state)
            return sweep.state
        _check_attempt(sweep, attempt)
        try:
            return _drive(sweep, store, settings, clock)
        except _Changed:
            logger.info("the sweep was extended at its end; going on")


def _check_attempt(sweep: Sweep, attempt: int) -> None:
    if sweep.attempt > attempt:
        raise Superseded(f"driver {sweep.attempt} has the sweep; this is driver {attempt}")


class _Changed(Exception):  # noqa: N818 - it is no error
    """The sweep got another spec when it was about to end."""


def _drive(sweep: Sweep, store: Store, settings: Settings, clock: Clock) -> SweepState:
    """Runs what is left of the sweep as it is now."""
    sweep_id = sweep.id
    spec = SweepSpec.from_dict(sweep.spec)
    recorder = Recorder(store, clock)
    if sweep.state is SweepState.RUNNING:
        _take_up(sweep, store, clock)
    trials = _insist(lambda: store.trials(sweep_id), clock)
    run = Run(
        sweep,
        spec,
        trials=trials,
        measurements=_insist(lambda: store.measurements(sweep_id), clock),
        known=_insist(lambda: known(spec, store, by=sweep.created_at), clock),
        folder=settings.trials(sweep_id),
        data_root=settings.data_root,
        data_reserve=settings.data_reserve,
        weights_root=settings.weights_root,
        referenced_weights=_insist(lambda: referenced_weights(spec, store), clock),
        recorder=recorder,
        clock=clock,
        disk=settings.disk,
    )
    engine = Engine(run, spec.resources, prepare=lambda: _prepare(run, sweep, spec, settings, recorder, clock))
    patience = math.inf if trials else NODE_SECONDS  # what it has done shows that there was a node
    asked = partial(look, store, run, clock)
    end = await_node(engine.misfit, run.starve, asked, patience, clock)
    end = _watch(engine, run, spec.stop.silence_limit_seconds, asked, end)
    recorder.close()
    end = _honest(end, recorder.lost, lambda: store.trials(sweep_id, states=[TrialState.RUNNING]), clock)
    _draw(store, sweep_id, spec, settings.pictures(sweep_id))
    return _finish(store, run.sweep, end.state, end.reason, clock)


def _take_up(sweep: Sweep, store: Store, clock: Clock) -> None:
    """Lets trials go on that were stopped for an end of the sweep that did not come.

    It was extended in the last moment, or its driver died before it could say that it had ended.
    """
    for trial in _insist(lambda: store.trials(sweep.id, states=[TrialState.STOPPED]), clock):
        move = partial(store.move_trial, trial.id, TrialState.PAUSED, at=clock.now(), reason="its sweep goes on")
        _insist(move, clock)


@dataclass(frozen=True, slots=True)
class End:
    """How a sweep is to end."""

    state: SweepState
    reason: str = ""
    at_once: bool = True
    """Its running trials are not waited for; else each ends at its next report."""


def _honest(end: End, lost: str, unfinished: Callable[[], Sequence[Trial]], clock: Clock) -> End:
    """The end, with what the store refused; if that was the end of a trial, the sweep has failed and may be retried."""
    if not lost:
        return end
    logger.warning("%s", lost)
    reason = f"{end.reason}; {lost}" if end.reason else lost
    failed = end.state is SweepState.COMPLETED and _insist(unfinished, clock)
    return replace(end, state=SweepState.FAILED if failed else end.state, reason=reason)


def await_node(
    misfit: Callable[[], str | None],
    tell: Callable[[str], None],
    look: Callable[[], End | None],
    patience: float,
    clock: Clock,
) -> End | None:
    """Waits until there is a node that can hold a trial, and tells of it; an end, if the sweep is to end first.

    Args:
        misfit: why there is none.
        tell: takes what trials wait for; empty: they do not.
        look: how the sweep must end now.
        patience: seconds after which it has failed.
        clock: counts them.
    """
    began = clock.now()
    while (end := look()) is None and (why := misfit()) is not None:
        if (clock.now() - began).total_seconds() >= patience:
            return End(SweepState.FAILED, why)
        tell(f"no trial begins: {why}")
        clock.sleep(POLL_SECONDS)
    tell("")
    return end


def _watch(engine: Engine, run: Run, silence: float | None, look: Callable[[], End | None], end: End | None) -> End:
    """Lets the engine work until it has ended or must, and says how the sweep ended. `end`: it must already."""
    if end is not None and end.state is SweepState.PAUSED:
        run.drain(pause=True)
    if end is None:
        engine.start()
        while not engine.wait(POLL_SECONDS):
            if silence is not None:
                engine.kill_silent(silence)
            asked = look()
            if asked is None or asked == end:
                continue
            end = asked
            logger.info("ending the sweep: %s", end.reason)
            if not end.at_once:
                run.drain(pause=end.state is SweepState.PAUSED)
                continue
            run.stop()
            if not engine.wait(GRACE_SECONDS):
                engine.kill()
                engine.wait(CLEANUP_SECONDS)
            break
    if engine.error is not None and end is None:
        end = End(SweepState.FAILED, engine.error)
    elif end is None and run.failure is not None:
        end = End(SweepState.FAILED, run.failure)
    end = end or End(SweepState.COMPLETED)
    run.close(f"the sweep ended: {end.reason}" if end.reason else "the sweep ended")
    return end


REQUESTS = {
    SweepState.PAUSING: End(SweepState.PAUSED, "paused on request", at_once=False),
    SweepState.STOPPING: End(SweepState.STOPPED, "stopped on request", at_once=False),
    SweepState.CANCELLING: End(SweepState.STOPPED, "cancelled on request"),
}


def look(store: Store, run: Run, clock: Clock) -> End | None:
    """How the sweep must end now; None: it may go on. The run hears of another spec.

    Where the store does not answer, the sweep goes on. Its time budget counts the times without a driver too, but not
    those in which it was queued, paused or ended. While a driver lives, its clock is steady: the machine's may jump.

    Raises:
        Superseded: the sweep has had another driver since the run began.
    """
    try:
        now = store.sweep(run.sweep.id)
    except Unavailable:
        return None
    _check_attempt(now, run.sweep.attempt)
    if not now.state.driven:
        return End(now.state, f"the sweep became {now.state} elsewhere")
    if now.state in REQUESTS:
        return REQUESTS[now.state]
    if now.revision != run.sweep.revision:
        logger.info("the sweep has another spec: revision %d", now.revision)
        run.extend(now)
    budget = Stop.from_dict(now.spec["stop"]).time_budget_seconds
    if budget is not None and now.seconds_run(clock.now()) >= budget:
        return End(SweepState.COMPLETED, f"its time budget of {timedelta(seconds=budget)} is over")
    return None


def _finish(store: Store, sweep: Sweep, state: SweepState, reason: str, clock: Clock) -> SweepState:
    """Moves the sweep to its final state; a request that came at the last moment wins over completion.

    Raises:
        _Changed: the sweep has another spec than the one that was run to its end.
        Superseded: it has another driver.
    """
    sweep_id = sweep.id

    def move(state: SweepState, reason: str, trial_moves: Mapping[TrialState, TrialState]) -> SweepState:
        ask = partial(store.move_sweep, sweep_id, state, reason=reason, seen=sweep, trial_moves=trial_moves)
        return _insist(lambda: ask(at=clock.now()), clock).state

    try:
        final = move(state, reason, {})
    except IllegalMove:
        now = _insist(lambda: store.sweep(sweep_id), clock).state
        if now not in REQUESTS:
            return now
        asked = REQUESTS[now]
        paused = {TrialState.PAUSED: TrialState.STOPPED} if asked.state is SweepState.STOPPED else {}
        final, reason = move(asked.state, asked.reason, paused), asked.reason
    except Conflict as error:
        if _insist(lambda: store.sweep(sweep_id), clock).attempt > sweep.attempt:
            raise Superseded(str(error)) from error
        raise _Changed from error
    logger.info("sweep %s %s%s", sweep_id, final, f": {reason}" if reason else "")
    return final


def _draw(store: Store, sweep_id: str, spec: SweepSpec, folder: Path) -> None:
    """Draws the sweep's pictures; whatever is the matter with them, the sweep has done its work."""
    try:
        from service.adapters.pictures import draw, sweep_figures  # only here: no trial shall wait for its import

        trials, measurements = store.trials(sweep_id), store.measurements(sweep_id)
        completed = [one for one in as_points(spec, trials) if one.state is TrialState.COMPLETED]
        values = [Known(one.point, one.values or ()) for one in completed]
        importances = Search(spec, known=values).importances()
        draw(folder, sweep_figures(spec, trials, measurements, importances))
    except Exception:
        logger.exception("the sweep has no pictures")


class _Stopped(Exception):  # noqa: N818 - it is no error
    """The sweep ends while its data are being made."""


def _prepare(run: Run, sweep: Sweep, spec: SweepSpec, settings: Settings, recorder: Recorder, clock: Clock) -> None:
    """Makes the dataset, once for all trials. Where data settings are searched, each trial sees to its own."""
    if any(name.startswith("data.") for name in spec.space):
        return
    data = spec.trial(spec.space.corners()[0]).data
    told = -PROGRESS_SECONDS

    def progress(done: int, total: int) -> None:
        nonlocal told
        if run.ending:
            raise _Stopped
        now = time.monotonic()
        if done < total and now - told < PROGRESS_SECONDS:
            return
        told = now
        at = clock.now()
        recorder.put(
            lambda store: store.add_progress(sweep.id, what=f"data: {data.name}", done=done, total=total, at=at)
        )

    logger.info("loading the data: %s", data.name)
    with suppress(_Stopped):
        data.load(settings.data_root, progress, spread(), reserve=settings.data_reserve)


def _insist(ask: Callable[[], T], clock: Clock) -> T:
    """The store's answer, however long it takes it to give one."""
    while True:
        try:
            return ask()
        except Unavailable as error:
            logger.warning("the store does not answer, trying again: %s", error)
            clock.sleep(PAUSE_SECONDS)
