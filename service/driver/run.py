"""A running sweep: which trial comes next, what a report means, how a trial ends. It knows nothing of Ray."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

from service.adapters.optuna_search import Search
from service.domain import Measurement, Sweep, Trial, TrialState
from service.driver.recorder import Recorder
from service.ports import Clock, Store
from service.spec import SweepSpec
from service.sweeps import leaderboard, offer_champion
from trainables.trainable import Report, TrialSettings

logger = logging.getLogger(__name__)

DEATHS = 3
"""A trial whose worker dies this many times has failed: it is likely what kills them."""


@final
class Run:
    """One sweep while it runs. Every change goes to the recorder and to the search, once each.

    Methods may be called from several threads.

    Args:
        sweep: the sweep.
        spec: its spec.
        trials: what the store has of it; unfinished ones come first and go on from their checkpoints.
        measurements: theirs.
        folder: where the trials keep their checkpoints, a folder each.
        data_root: where the datasets are.
        recorder: takes what the store shall know.
        clock: gives every change its time.
    """

    def __init__(
        self,
        sweep: Sweep,
        spec: SweepSpec,
        *,
        trials: Sequence[Trial],
        measurements: Sequence[Measurement],
        folder: Path,
        data_root: Path,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._sweep, self._spec, self._folder, self._data_root = sweep, spec, folder, data_root
        self._recorder, self._clock = recorder, clock
        self._objective = spec.objective
        self._search = Search(spec, trials, measurements)
        self._waiting = deque(trial for trial in trials if not trial.state.final)
        self._running: dict[str, Trial] = {}
        self._deaths: dict[str, int] = {}
        self._finished = [trial for trial in trials if trial.state.final]
        self._stopping = False
        self._lock = threading.RLock()
        if self._finished:  # the last driver may have died between completing a trial and offering it
            self._recorder.put(self._offer_best)

    @property
    def running(self) -> int:
        """How many trials run now."""
        return len(self._running)

    @property
    def stopping(self) -> bool:
        """No trial shall go on."""
        return self._stopping

    @property
    def failure(self) -> str | None:
        """Why the whole sweep has failed: the first trial's reason, if every trial failed."""
        with self._lock:
            if not self._finished or any(trial.state is not TrialState.FAILED for trial in self._finished):
                return None
            first = min(self._finished, key=lambda trial: trial.number)
            return f"every trial failed, the first one with: {first.reason}"

    def start(self) -> TrialSettings | Literal["later", "never"]:
        """A trial to run now; `later` while only running trials could leave one to run again; `never`: all is done."""
        with self._lock:
            trial = self._next() if not self._stopping else None
            if trial is None:
                return "later" if self._running and not self._stopping else "never"
            self._running[trial.id] = trial
            return TrialSettings(
                trial_id=trial.id,
                sweep_id=trial.sweep_id,
                trial=self._spec.trial(trial.point).to_dict(),
                checkpoint=trial.checkpoint,
                step=trial.step,
                folder=str(self._folder / trial.id),
                data_root=str(self._data_root),
                cpus=self._spec.resources.cpus,
            )

    def report(self, trial_id: str, report: Report) -> bool:
        """Takes what a trial reports after an epoch; True: the trial ends here."""
        with self._lock:
            trial = self._running.get(trial_id)
            if trial is None:  # the sweep was stopped while the report was on its way
                return True
            values = self._values(report["best_metrics"])
            trial = replace(trial, step=report["step"], checkpoint=report["checkpoint"], values=values)
            self._running[trial_id] = trial
            measurement = Measurement(
                trial_id=trial_id, step=report["step"], at=self._clock.now(), metrics=dict(report["metrics"])
            )
            self._recorder.put(lambda store: store.add_measurement(measurement, checkpoint=report["checkpoint"]))
            if report["diverged"]:
                self._end(trial, TrialState.FAILED, str(report["finished"]))
            elif report["finished"] is not None:
                self._complete(trial, report)
            elif self._search.report(trial.number, report["step"], self._objective_of(report["metrics"])):
                self._end(trial, TrialState.PRUNED, f"behind other trials at epoch {report['step']}")
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
            if deaths >= DEATHS:
                self._end(trial, TrialState.FAILED, f"its worker died {deaths} times, the last time with: {reason}")
            else:
                del self._running[trial_id]
                self._waiting.appendleft(trial)
                logger.info("trial %d lost its worker: %s", trial.number, reason)

    def stop(self) -> None:
        """Starts no further trial."""
        self._stopping = True

    def close(self, reason: str) -> None:
        """Stops what still runs or waits; the checkpoints stay."""
        with self._lock:
            self._stopping = True
            for trial in sorted([*self._running.values(), *self._waiting], key=lambda trial: trial.number):
                self._running[trial.id] = trial
                self._end(trial, TrialState.STOPPED, reason)
            self._waiting.clear()

    def _next(self) -> Trial | None:
        if self._waiting:
            trial = self._waiting.popleft()
            logger.info("trial %d goes on after %s", trial.number, _epochs(trial.step))
            return trial
        asked = self._search.ask()
        if asked is None:
            return None
        number, point = asked
        trial = Trial(
            id=f"{self._sweep.id}-{number:04}",
            sweep_id=self._sweep.id,
            number=number,
            point=point,
            created_at=self._clock.now(),
        )
        self._recorder.put(lambda store: store.add_trial(trial))
        logger.info("trial %d starts: %s", number, ", ".join(f"{name} = {_shown(v)}" for name, v in point.items()))
        return trial

    def _objective_of(self, metrics: Mapping[str, float]) -> float:
        return metrics.get(self._objective.metric, math.nan)

    def _values(self, metrics: Mapping[str, float]) -> tuple[float, ...] | None:
        value = self._objective_of(metrics)
        return (value,) if math.isfinite(value) else None

    def _complete(self, trial: Trial, report: Report) -> None:
        if trial.values is not None:
            self._end(trial, TrialState.COMPLETED, str(report["finished"]))
        elif self._objective.metric in report["best_metrics"]:
            value = report["best_metrics"][self._objective.metric]
            self._end(trial, TrialState.FAILED, f"{self._objective.metric} is {value} at step {report['best_step']}")
        else:
            known = ", ".join(report["best_metrics"]) or "none"
            self._end(trial, TrialState.FAILED, f"it did not measure {self._objective.metric}; it measured: {known}")

    def _end(self, trial: Trial, state: TrialState, reason: str) -> None:
        """The one place where a trial ends: told to the search, to the recorder and to the log."""
        del self._running[trial.id]
        ended = trial.to(state, at=self._clock.now(), reason=reason)
        self._finished.append(ended)
        match state:
            case TrialState.COMPLETED:
                assert ended.values is not None
                self._search.complete(ended.number, ended.values[0])
            case TrialState.PRUNED:
                self._search.prune(ended.number)
            case _:
                self._search.fail(ended.number)
        assert ended.finished_at is not None
        at, values = ended.finished_at, ended.values
        self._recorder.put(lambda store: store.finish_trial(trial.id, state, at=at, reason=reason, values=values))
        measured = f", {self._objective.metric} = {_shown(values[0])}" if values else ""
        logger.info("trial %d %s after %s%s: %s", ended.number, state, _epochs(ended.step), measured, reason)
        if state is TrialState.COMPLETED:
            self._recorder.put(lambda store: self._offer(store, ended))

    def _offer_best(self, store: Store) -> None:
        for trial in leaderboard(store, self._sweep.id, limit=1):
            self._offer(store, trial)

    def _offer(self, store: Store, trial: Trial) -> None:
        version = offer_champion(store, trial.id, at=self._clock.now())
        if version is not None:
            logger.info("trial %d is the champion: version %d of %s", trial.number, version.version, version.name)


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
