"""Driving one sweep from where the store says it is to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from service.adapters.optuna_search import Search
from service.adapters.pictures import draw, sweep_figures
from service.domain import IllegalMove, Sweep, SweepState, Unavailable
from service.driver.log import keep_log
from service.driver.recorder import PAUSE_SECONDS, Recorder
from service.driver.run import Run
from service.driver.spread import spread
from service.driver.tune import Engine
from service.ports import Clock, Store
from service.settings import Settings
from service.spec import SweepSpec

logger = logging.getLogger(__name__)
T = TypeVar("T")

POLL_SECONDS = 1.0
"""Between two looks at whether the sweep shall stop."""
GRACE_SECONDS = 2.0
"""What a stopped sweep's workers get to end by themselves, so that an epoch that is nearly done is kept."""
CLEANUP_SECONDS = 5.0
"""What Tune gets to tidy up after its workers were killed."""
PROGRESS_SECONDS = 0.5
"""Between two events about data being made."""


class Superseded(Exception):  # noqa: N818 - it says what is the matter
    """The sweep has a newer driver: Ray believed this one dead. What is left of the sweep is the other's."""


def drive(sweep_id: str, *, store: Store, settings: Settings, clock: Clock) -> SweepState:
    """Runs the sweep, or what is left of it, and returns its final state. Ray must be connected.

    Raises:
        NotFound: there is no such sweep.
        Superseded: another driver has it now; this process should end, and touch nothing.
    """
    sweep = _insist(lambda: store.sweep(sweep_id), clock)
    keep_log(settings.driver_log(sweep_id, sweep.attempt))
    if sweep.state is SweepState.QUEUED:
        sweep = _insist(lambda: store.move_sweep(sweep_id, SweepState.RUNNING, at=clock.now()), clock)
    if sweep.state.final:
        logger.info("sweep %s is %s already", sweep_id, sweep.state)
        return sweep.state
    spec = SweepSpec.from_dict(sweep.spec)
    recorder = Recorder(store, clock)
    run = Run(
        sweep,
        spec,
        trials=_insist(lambda: store.trials(sweep_id), clock),
        measurements=_insist(lambda: store.measurements(sweep_id), clock),
        folder=settings.sweeps_root / sweep_id / "trials",
        data_root=settings.data_root,
        recorder=recorder,
        clock=clock,
    )
    engine = Engine(run, spec.resources, prepare=lambda: _prepare(run, sweep, spec, settings, recorder, clock))
    state, reason = _watch(engine, run, lambda: ending(store, sweep, spec.stop.time_budget_seconds, clock))
    recorder.close()
    _draw(store, sweep_id, spec, settings.pictures(sweep_id))
    return _finish(store, sweep_id, state, reason, clock)


def _watch(engine: Engine, run: Run, ending: Callable[[], tuple[SweepState, str] | None]) -> tuple[SweepState, str]:
    """Lets the engine work until it has ended or must, and says how the sweep ended."""
    end = ending()
    if end is None:
        engine.start()
        while not engine.wait(POLL_SECONDS) and end is None:
            end = ending()
        if end is not None:
            logger.info("ending the sweep: %s", end[1])
            run.stop()
            if not engine.wait(GRACE_SECONDS):
                engine.kill()
                engine.wait(CLEANUP_SECONDS)
    if engine.error is not None and end is None:
        end = SweepState.FAILED, engine.error
    elif end is None and run.failure is not None:
        end = SweepState.FAILED, run.failure
    run.close(f"the sweep ended: {end[1]}" if end else "the sweep ended")
    return end or (SweepState.COMPLETED, "")


def ending(store: Store, sweep: Sweep, budget: int | None, clock: Clock) -> tuple[SweepState, str] | None:
    """The state in which the sweep must end now, and why; None: it may go on.

    Args:
        store: is asked whether the sweep shall stop; where it does not answer, the sweep goes on.
        sweep: when its first driver started.
        budget: seconds that it may take, driverless times included; None: as many as it needs.
        clock: tells how many have passed.

    Raises:
        Superseded: the sweep has had another driver since `sweep` was read.
    """
    try:
        now = store.sweep(sweep.id)
    except Unavailable:
        return None
    if now.attempt > sweep.attempt:
        raise Superseded(f"driver {now.attempt} has the sweep; this is driver {sweep.attempt}")
    state = now.state
    if state is SweepState.STOPPING:
        return SweepState.STOPPED, "stopped on request"
    if state.final:
        return state, f"the sweep became {state} elsewhere"
    if budget is not None and sweep.started_at and clock.now() - sweep.started_at >= timedelta(seconds=budget):
        return SweepState.COMPLETED, f"its time budget of {timedelta(seconds=budget)} is over"
    return None


def _finish(store: Store, sweep_id: str, state: SweepState, reason: str, clock: Clock) -> SweepState:
    """Moves the sweep to its final state; a request to stop that came at the last moment wins over completion."""

    def move(state: SweepState) -> SweepState:
        return _insist(lambda: store.move_sweep(sweep_id, state, at=clock.now(), reason=reason), clock).state

    try:
        final = move(state)
    except IllegalMove:
        now = _insist(lambda: store.sweep(sweep_id), clock).state
        final = move(SweepState.STOPPED) if now is SweepState.STOPPING else now
    logger.info("sweep %s %s%s", sweep_id, final, f": {reason}" if reason else "")
    return final


def _draw(store: Store, sweep_id: str, spec: SweepSpec, folder: Path) -> None:
    """Draws the sweep's pictures; whatever is the matter with them, the sweep has done its work."""
    try:
        trials, measurements = store.trials(sweep_id), store.measurements(sweep_id)
        importances = Search(spec, trials, measurements).importances()
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
        if run.stopping:
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
        data.load(settings.data_root, progress, spread())


def _insist(ask: Callable[[], T], clock: Clock) -> T:
    """The store's answer, however long it takes it to give one."""
    while True:
        try:
            return ask()
        except Unavailable as error:
            logger.warning("the store does not answer, trying again: %s", error)
            clock.sleep(PAUSE_SECONDS)
