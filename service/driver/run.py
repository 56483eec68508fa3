"""A running sweep: which trial comes next, what a report means, how a trial ends. It knows nothing of Ray."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, final

from service.adapters.clock import LaterClock
from service.disk import Disk
from service.domain import Measurement, Sweep, Trial, TrialState
from service.driver import outcomes
from service.driver.generations import Generations
from service.driver.kept import Kept
from service.driver.recorder import Recorder
from service.driver.repeats import Asked, Repeats
from service.driver.share import Share, share
from service.driver.waits import Waits
from service.errors import Unavailable
from service.points import Known
from service.ports import Clock, Store
from service.spec import SweepSpec
from trainables.config import ConfigError
from trainables.trainable import Report, TrialSettings
from trainables.trial import TrialConfig

logger = logging.getLogger(__name__)

DEATHS = 3
"""A trial whose worker dies this many times without a step in between has failed: it is likely what kills them."""
ILLEGAL = 100
"""After so many new points in a row that are no legal trials the sweep has failed: its space has hardly a legal one."""
LOOK_SECONDS = 1.0
"""What is waited at once for a look at the population to be in the store; nothing could run meanwhile."""


@final
class Run:
    """One sweep while it runs. Every change goes to the recorder and to the search, once each.

    Methods may be called from several threads.

    Args:
        sweep: the sweep.
        spec: its spec.
        trials: what the store has of it; unfinished ones come first and go on from their checkpoints.
        measurements: theirs.
        known: what other sweeps found in this space.
        folder: where the trials keep their checkpoints, a folder each.
        data_root: where the datasets are.
        data_reserve: bytes that those which trials make leave free.
        weights_root: where weights are that trials may start from by a path.
        referenced_weights: where those are that the spec refers to, by the reference.
        recorder: takes what the store shall know.
        clock: gives every change its time, never one before those that `trials` have.
        disk: takes the checkpoints; while it is short of room no trial begins, and those that run go on.
    """

    def __init__(
        self,
        sweep: Sweep,
        spec: SweepSpec,
        *,
        trials: Sequence[Trial],
        measurements: Sequence[Measurement],
        known: Sequence[Known] = (),
        folder: Path,
        data_root: Path,
        data_reserve: int = 0,
        weights_root: Path,
        referenced_weights: Mapping[str, str],
        recorder: Recorder,
        clock: Clock,
        disk: Disk,
    ) -> None:
        self._sweep, self._spec, self._folder = sweep, spec, folder
        self._data_root, self._data_reserve, self._weights_root = data_root, data_reserve, weights_root
        self._referenced_weights = referenced_weights
        self._recorder, self._disk = recorder, disk
        # Samplers go by the order of what happened: no clock that was put back between two drivers may change it.
        times = [at for trial in trials for at in (trial.created_at, trial.finished_at) if at is not None]
        self._clock = LaterClock(clock, max(times, default=clock.now()))
        self._repeats = Repeats(spec, trials, measurements, known)
        self._generations = Generations(spec, trials, measurements, folder)
        held = {trial.id for trial in self._generations.held}
        self._waiting = deque(trial for trial in trials if not trial.state.final and trial.id not in held)
        self._running: dict[str, Trial] = {}
        self._asked: Asked | None = None
        """Begins as soon as there is room."""
        self._waits = Waits(sweep, put=lambda write: self._recorder.put(write), clock=self._clock)
        self._illegal = 0
        """Points in a row that were no legal trials."""
        self._deaths: dict[str, int] = {}
        self._enlarged: set[str] = set()
        self._finished = [trial for trial in trials if trial.state.final]
        self._stopping = False
        self._draining: Literal["pause", "stop"] | None = None
        self._over = False
        """It was said that no trial comes any more."""
        self._lock = threading.RLock()
        self._looking = False
        self._looked = threading.Condition(self._lock)
        self._broken: str | None = None
        """Why the sweep cannot go on, whatever its trials came to."""
        self._kept = Kept(sweep, self._finished, folder, put=lambda write: self._recorder.put(write), clock=self._clock)

    @property
    def sweep(self) -> Sweep:
        """The sweep whose spec this runs."""
        return self._sweep

    @property
    def running(self) -> int:
        """How many trials run now."""
        return len(self._running)

    @property
    def stopping(self) -> bool:
        """No trial shall go on."""
        return self._stopping

    @property
    def ending(self) -> bool:
        """No trial shall begin; those that have begun may go on to their next report, unless it is stopping."""
        return self._stopping or self._draining is not None

    @property
    def failure(self) -> str | None:
        """Why the whole sweep has failed: it cannot go on, or every trial failed, the first one with that reason."""
        with self._lock:
            if self._broken is not None:
                return self._broken
            if not self._finished or any(trial.state is not TrialState.FAILED for trial in self._finished):
                return None
            first = min(self._finished, key=lambda trial: trial.number)
            return f"every trial failed, the first one with: {first.reason}"

    def start(self) -> TrialSettings | Literal["later", "never"]:
        """A trial to run now; `later` while there may be one later; `never`: all is done.

        Later is when a running trial has left one to run again, or when the disk has room.
        """
        with self._lock:
            ending = self.ending or self._broken is not None
            if not ending and (self._running or self._due() or self._generations.held) and not self._has_room():
                return "later"
            begun = self._begin() if not ending else None
            if begun is None and not ending and not self._running and self._generations.held:
                self._look_at_the_population()
                begun = self._begin() if not self._generations.held else None
            if begun is None:
                self._over = ending or self._broken is not None or not (self._running or self._generations.held)
                return "never" if self._over else "later"
            trial, config = begun
            return TrialSettings(
                trial_id=trial.id,
                sweep_id=trial.sweep_id,
                trial=config.to_dict(),
                checkpoint=trial.checkpoint,
                step=trial.step,
                folder=str(self._folder / trial.id),
                data_root=str(self._data_root),
                data_reserve=self._data_reserve,
                weights_root=str(self._weights_root),
                referenced_weights=self._referenced_weights.get(str(config.train.initial_weights)),
                **self._share(trial.id),
            )

    def report(self, trial_id: str, report: Report) -> bool:
        """Takes what a trial reports after a step; True: the trial ends here."""
        with self._lock:
            trial = self._running.get(trial_id)
            if trial is None:  # the sweep was stopped while the report was on its way
                return True
            values = outcomes.values(self._spec.objectives, report["best_metrics"])
            if report["step"] > trial.step:
                self._deaths.pop(trial_id, None)
            step = max(trial.step, report["step"])  # it may have gone back to an older checkpoint
            trial = replace(trial, step=step, checkpoint=report["checkpoint"], values=values)
            self._running[trial_id] = trial
            measurement = Measurement(
                trial_id=trial_id, step=report["step"], at=self._clock.now(), metrics=dict(report["metrics"])
            )
            self._recorder.put(lambda store: store.add_measurement(measurement, checkpoint=report["checkpoint"]))
            if report["diverged"]:
                self._end(trial, TrialState.FAILED, str(report["finished"]))
            elif report["finished"] is not None:
                self._complete(trial, report)
            elif self._repeats.report(
                trial, report["step"], report["metrics"].get(self._spec.objective.metric, math.nan)
            ):
                self._end(trial, TrialState.PRUNED, f"behind other trials at step {report['step']}")
            elif self._draining is not None:
                self._leave(trial, self._draining)
            elif self._generations.holds(trial):
                del self._running[trial_id]
                self._generations.hold(trial, report["metrics"].get(self._spec.objective.metric, math.nan))
            return trial_id not in self._running

    def fail(self, trial_id: str, reason: str) -> None:
        """The trial's code raised an error: running it again would raise it again."""
        with self._lock:
            trial = self._running.get(trial_id)
            if trial is not None:
                self._end(trial, TrialState.FAILED, reason)

    def lose(self, trial_id: str, reason: str) -> None:
        """The trial's worker died: it goes on from its checkpoint, unless that has happened too often."""
        with self._lock:
            trial = self._running.get(trial_id)
            if trial is None:
                return
            deaths = self._deaths[trial_id] = self._deaths.get(trial_id, 0) + 1
            if deaths >= DEATHS and not self.ending:
                self._end(trial, TrialState.FAILED, f"its worker died {deaths} times, the last time with: {reason}")
            else:
                del self._running[trial_id]
                self._waiting.appendleft(trial)
                logger.info("trial %d lost its worker: %s", trial.number, reason)

    def exhaust(self, trial_id: str, reason: str) -> None:
        """The trial ran out of memory: it goes on from its checkpoint with twice the share of a machine, once."""
        with self._lock:
            trial = self._running.get(trial_id)
            if trial is None:
                return
            if trial_id in self._enlarged:
                amounts = " and ".join(f"{amount:g} {name}" for name, amount in self._share(trial_id).items() if amount)
                self._end(trial, TrialState.FAILED, f"it ran out of memory again, with {amounts}: {reason}")
            else:
                self._enlarged.add(trial_id)
                del self._running[trial_id]
                self._waiting.appendleft(trial)
                logger.info("trial %d ran out of memory and gets twice the share: %s", trial.number, reason)

    def starve(self, reason: str) -> None:
        """There is no node for the sweep's trials, and why; empty: one of them has got one, or none needs one."""
        with self._lock:
            self._waits.say("node", reason)

    def extend(self, sweep: Sweep) -> None:
        """Goes on with the sweep's new spec, which has more trials.

        Once it was said that no trial comes any more, it keeps the old one: nobody would ask for those of the new one.
        """
        with self._lock:
            if self._over:
                return
            self._sweep, self._spec = sweep, SweepSpec.from_dict(sweep.spec)
            self._repeats.extend(self._spec)

    def drain(self, *, pause: bool) -> None:
        """Starts no further trial; each that runs ends at its next report, to go on another time or for good."""
        with self._lock:
            self._draining = "pause" if pause else "stop"

    def stop(self) -> None:
        """Starts no further trial."""
        self._stopping = True

    def close(self, reason: str) -> None:
        """Stops what still runs or waits, or pauses it if that was the last word; the checkpoints stay."""
        with self._lock:
            paused = self._draining == "pause" and not self._stopping
            self._stopping = True
            left = [*self._running.values(), *self._waiting, *self._generations.release()]
            for trial in sorted(left, key=lambda trial: trial.number):
                self._running[trial.id] = trial
                if paused:
                    self._leave(trial, "pause")
                else:
                    self._end(trial, TrialState.STOPPED, reason)
            self._waiting.clear()
            self._kept.tidy()  # once more: a worker that was taken for dead may have written late

    def _due(self) -> bool:
        """There is a trial to begin or to go on with."""
        if not self._waiting and self._asked is None:
            self._asked = self._repeats.next()
        return bool(self._waiting) or self._asked is not None

    def _has_room(self) -> bool:
        """The disk has room for another trial; watchers hear when that changes."""
        shortage = self._disk.shortage
        self._waits.say("disk", shortage)
        return not shortage

    def _look_at_the_population(self) -> None:
        """All trials are there. The recorder looks, so that the store has what it comes from before a checkpoint is
        replaced, and what it comes to before a trial goes on.
        """
        if not self._looking:
            self._looking = True
            self._recorder.put(self._look)
        self._looked.wait(LOOK_SECONDS)

    def _look(self, store: Store) -> None:
        try:
            if exploits := self._generations.exploits():
                store.add_exploits(self._sweep.id, exploits, at=self._clock.now())
        except Unavailable:
            raise  # the recorder tries again
        except Exception as error:
            # A copy may have its checkpoint already, which only its new settings can read. The sweep ends; the driver
            # of a retry finds the same population, comes to the same copies, and goes on.
            logger.exception("the population cannot go on")
            with self._lock:
                self._broken = f"the look at its population failed with {type(error).__name__}: {error}"
                self._looking = False
                self._looked.notify_all()
            return
        with self._lock:
            numbers = {trial.id: trial.number for trial in self._generations.held}
            for exploit in exploits:
                pair = numbers.get(exploit.trial_id), numbers.get(exploit.source)
                said = outcomes.steps(exploit.step), outcomes.settings(exploit.point)
                logger.info("trial %s copies trial %s after %s: %s", *pair, *said)
            self._waiting.extend(self._generations.release(exploits))
            self._looking = False
            self._looked.notify_all()

    def _begin(self) -> tuple[Trial, TrialConfig] | None:
        """The next legal trial, which runs from now on; those before it fail."""
        while self._broken is None and (trial := self._next()) is not None:
            self._running[trial.id] = trial
            try:
                config = self._spec.trial(trial.point, trial.repeat)
            except ConfigError as error:
                reason = f"its point is no legal trial: {error}"
                self._end(trial, TrialState.FAILED, reason)
                self._illegal += trial.repeat == 0 and not self._waiting  # old ones are as many as they are
                if self._illegal == ILLEGAL:
                    self._broken = f"{ILLEGAL} points in a row are no legal trials, the last one: {error}"
            else:
                self._illegal = 0
                return trial, config
        return None

    def _next(self) -> Trial | None:
        if self._waiting:
            trial = self._waiting.popleft()
            logger.info("trial %d goes on after %s", trial.number, outcomes.steps(trial.step))
            return self._move(trial, TrialState.RUNNING, "") if trial.state is TrialState.PAUSED else trial
        if not self._due():
            return None
        assert self._asked is not None
        (number, repeat, point), self._asked = self._asked, None
        trial = Trial(
            id=f"{self._sweep.id}-{number:04}",
            sweep_id=self._sweep.id,
            number=number,
            repeat=repeat,
            point=point,
            created_at=self._clock.now(),
        )
        self._recorder.put(lambda store: store.add_trial(trial))
        logger.info("trial %d starts: %s%s", number, outcomes.settings(point), f", repeat {repeat}" if repeat else "")
        return trial

    def _share(self, trial_id: str) -> Share:
        return share(self._spec.resources, enlarged=trial_id in self._enlarged)

    def _complete(self, trial: Trial, report: Report) -> None:
        if trial.values is not None:
            self._end(trial, TrialState.COMPLETED, str(report["finished"]))
        else:
            self._end(trial, TrialState.FAILED, outcomes.why_none(self._spec.objectives, report))

    def _leave(self, trial: Trial, how: Literal["pause", "stop"]) -> None:
        """Ends a trial that could go on, because its sweep does not."""
        if how == "stop":
            self._end(trial, TrialState.STOPPED, "the sweep was stopped")
            return
        del self._running[trial.id]
        paused = trial.state is TrialState.PAUSED
        self._waiting.append(trial if paused else self._move(trial, TrialState.PAUSED, "the sweep was paused"))

    def _move(self, trial: Trial, state: TrialState, reason: str) -> Trial:
        moved = trial.to(state, at=self._clock.now(), reason=reason)
        at = self._clock.now()
        self._recorder.put(lambda store: store.move_trial(trial.id, state, at=at, reason=reason, values=moved.values))
        logger.info("trial %d is %s after %s", moved.number, state, outcomes.steps(moved.step))
        return moved

    def _end(self, trial: Trial, state: TrialState, reason: str) -> None:
        """The one place where a trial ends: told to the search, to the recorder and to the log."""
        del self._running[trial.id]
        ended = trial.to(state, at=self._clock.now(), reason=reason)
        self._finished.append(ended)
        self._repeats.end(ended)
        assert ended.finished_at is not None
        at, values = ended.finished_at, ended.values
        self._recorder.put(lambda store: store.move_trial(trial.id, state, at=at, reason=reason, values=values))
        measured = outcomes.measured(self._spec.objectives, values)
        logger.info("trial %d %s after %s%s: %s", ended.number, state, outcomes.steps(ended.step), measured, reason)
        self._kept.end(ended)
