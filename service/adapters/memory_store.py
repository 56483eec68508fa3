"""A store that really works, in this process's memory: what tests hand to the core and the API."""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from service.adapters import memory_checkpoints, memory_queue
from service.adapters.memory_census import census
from service.adapters.memory_claims import MemoryClaims
from service.adapters.memory_measurements import MemoryMeasurements
from service.adapters.memory_models import MemoryModels
from service.adapters.through_json import through_json
from service.domain import (
    Event,
    EventKind,
    Exploit,
    Measurement,
    ModelVersion,
    Promotion,
    Sweep,
    SweepState,
    Trial,
    TrialState,
    as_data,
)
from service.errors import Conflict, NotFound
from service.port_values import Ahead, Census, Claim, Lease


class MemoryStore:
    """`ports.Store` in dictionaries, for threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sweeps: dict[str, Sweep] = {}
        self._trials: dict[str, Trial] = {}
        self._measurements = MemoryMeasurements()
        self._events: dict[str, list[Event]] = {}
        self._models = MemoryModels()
        self._claims = MemoryClaims()
        self._leases: dict[str, Lease] = {}

    def add_sweep(self, sweep: Sweep) -> None:
        with self._lock:
            if sweep.id in self._sweeps:
                raise Conflict(f"sweep {sweep.id} exists already")
            memory_checkpoints.check_starts(self._sweeps, self._trials, sweep)
            self._sweeps[sweep.id] = through_json(sweep)
            self._events[sweep.id] = []
            self._append(sweep.id, "sweep", {"state": sweep.state.value, "reason": sweep.reason}, sweep.created_at)

    def claim(self, claim: Claim, *, expired_before: datetime) -> Claim:
        with self._lock:
            return self._claims.claim(claim, expired_before=expired_before)

    def claimed(self, key: str, *, since: datetime) -> Claim | None:
        with self._lock:
            return self._claims.claimed(key, since=since)

    def sweep(self, sweep_id: str) -> Sweep:
        with self._lock:
            if sweep_id not in self._sweeps:
                raise NotFound(f"there is no sweep {sweep_id!r}")
            return through_json(self._sweeps[sweep_id])

    def sweeps(
        self,
        *,
        states: Sequence[SweepState] = (),
        name: str | None = None,
        family: str | None = None,
        limit: int | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> list[Sweep]:
        with self._lock:
            found = [
                sweep
                for sweep in sorted(self._sweeps.values(), key=_age, reverse=True)
                if (not states or sweep.state in states)
                and name in (None, sweep.name)
                and family in (None, sweep.spec.get("family"))
            ]
            if before is not None:
                found = [sweep for sweep in found if _age(sweep) < before]
            return [through_json(sweep) for sweep in found[:limit]]

    def queue(self, *, limit: int) -> list[Sweep]:
        with self._lock:
            return [through_json(sweep) for sweep in memory_queue.queue(self._sweeps)[:limit]]

    def ahead(self, sweep_id: str) -> Ahead:
        with self._lock:
            return memory_queue.ahead(self._sweeps, self.sweep(sweep_id))

    def move_sweep(
        self,
        sweep_id: str,
        state: SweepState,
        *,
        at: datetime,
        reason: str = "",
        seen: Sweep | None = None,
        after: SweepState | None = None,
        trial_moves: Mapping[TrialState, TrialState] | None = None,
    ) -> Sweep:
        with self._lock:
            sweep = self.sweep(sweep_id)
            if seen is not None and (seen.attempt, seen.revision) != (sweep.attempt, sweep.revision):
                raise Conflict(f"sweep {sweep_id} has another driver or spec by now")
            if after not in (None, sweep.state):
                raise Conflict(f"sweep {sweep_id} is {sweep.state} by now, not {after}")
            if state is SweepState.DELETING:
                memory_checkpoints.check_unneeded(self._sweeps, self._trials, sweep_id)
            moved, moves = sweep.to(state, at=at, reason=reason), trial_moves or {}
            trials = [one for one in self.trials(sweep_id) if one.state in moves]
            for trial in [one.to(moves[one.state], at=at, reason=reason) for one in trials]:
                self._trials[trial.id] = trial
                self._append(sweep_id, "trial", as_data(trial), at)
            self._sweeps[sweep_id] = replace(moved, last_event=self._sweeps[sweep_id].last_event)
            self._append(sweep_id, "sweep", {"state": moved.state.value, "reason": moved.reason}, at)
            return self.sweep(sweep_id)

    def change_spec(self, sweep_id: str, spec: Mapping[str, Any], *, seen: Sweep, at: datetime) -> Sweep:
        with self._lock:
            sweep = self.sweep(sweep_id)
            if (sweep.revision, sweep.state) != (seen.revision, seen.state) or sweep.state is SweepState.DELETING:
                raise Conflict(f"sweep {sweep_id} has been changed meanwhile")
            self._sweeps[sweep_id] = through_json(replace(sweep, spec=spec, revision=sweep.revision + 1))
            data = {"state": sweep.state.value, "reason": sweep.reason, "spec": spec}
            self._append(sweep_id, "sweep", data, at)
            return self.sweep(sweep_id)

    def delete_sweep(self, sweep_id: str) -> None:
        with self._lock:
            self.sweep(sweep_id)
            gone = {trial.id for trial in self.trials(sweep_id)}
            self._trials = {key: one for key, one in self._trials.items() if key not in gone}
            self._measurements.forget(gone)
            self._claims.forget(sweep_id)
            del self._sweeps[sweep_id], self._events[sweep_id]
            for promotion in self._models.forget(sweep_id):
                self._tell(promotion)

    def count_attempt(self, sweep_id: str, *, after: int | None = None, died: bool = False) -> int:
        with self._lock:
            sweep = self.sweep(sweep_id)
            if after not in (None, sweep.attempt):
                raise Conflict(f"sweep {sweep_id} has had {sweep.attempt} attempts, not {after}")
            self._sweeps[sweep_id] = replace(sweep, attempt=sweep.attempt + 1, deaths=sweep.deaths + died)
            return sweep.attempt + 1

    def add_trial(self, trial: Trial) -> None:
        with self._lock:
            others = self.trials(trial.sweep_id)
            if trial.id in self._trials:
                return
            if any(other.number == trial.number for other in others):
                raise Conflict(f"sweep {trial.sweep_id} has another trial number {trial.number}")
            self._trials[trial.id] = through_json(trial)
            self._append(trial.sweep_id, "trial", as_data(trial), trial.created_at)

    def trial(self, trial_id: str) -> Trial:
        with self._lock:
            if trial_id not in self._trials:
                raise NotFound(f"there is no trial {trial_id!r}")
            return through_json(self._trials[trial_id])

    def trials(
        self,
        sweep_id: str,
        *,
        states: Sequence[TrialState] = (),
        numbers: Sequence[int] | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> list[Trial]:
        with self._lock:
            self.sweep(sweep_id)
            found = [
                through_json(trial)
                for trial in self._trials.values()
                if trial.sweep_id == sweep_id
                and (not states or trial.state in states)
                and (numbers is None or trial.number in numbers)
                and (after is None or trial.number > after)
            ]
            return sorted(found, key=lambda trial: trial.number)[:limit]

    def count_trials(self, sweep_id: str) -> dict[TrialState, int]:
        return dict(Counter(trial.state for trial in self.trials(sweep_id)))

    def completed(self, sweep_id: str) -> list[int]:
        return [trial.number for trial in self.trials(sweep_id, states=[TrialState.COMPLETED])]

    def best_trials(
        self,
        sweep_id: str,
        *,
        mode: Literal["min", "max"],
        limit: int | None = None,
        after: tuple[float, int] | None = None,
    ) -> list[Trial]:
        sign = -1 if mode == "max" else 1
        ranked = sorted(
            (sign * _value(trial), trial.number, trial)
            for trial in self.trials(sweep_id, states=[TrialState.COMPLETED])
        )
        place = (sign * after[0], after[1]) if after is not None else (-math.inf, -1)
        return [trial for *own, trial in ranked if tuple(own) > place][:limit]

    def add_measurement(self, measurement: Measurement, *, checkpoint: str | None = None) -> bool:
        with self._lock:
            trial, new = self.trial(measurement.trial_id), self._measurements.add(measurement)
            self._trials[trial.id] = replace(
                trial,
                step=max(trial.step, measurement.step) if new else trial.step,
                checkpoint=trial.checkpoint if checkpoint is None or trial.over else checkpoint,
            )
            if new:
                self._sweeps[trial.sweep_id] = replace(self._sweeps[trial.sweep_id], deaths=0)
                data = {"trial_id": trial.id, "step": measurement.step, "metrics": measurement.metrics}
                self._append(trial.sweep_id, "measurement", data, measurement.at)
            return new

    def forget_checkpoint(self, trial_id: str) -> bool:
        with self._lock:
            trial = self.trial(trial_id)
            needed = self._models.serves(trial_id) or memory_checkpoints.starts_another(self._sweeps, trial_id)
            if trial.over and trial.weights == "kept" and not needed:
                self._trials[trial_id] = replace(trial, checkpoint="")
            return self._trials[trial_id].weights == "removed"

    def move_trial(
        self,
        trial_id: str,
        state: TrialState,
        *,
        at: datetime,
        reason: str = "",
        values: tuple[float, ...] | None = None,
    ) -> Trial:
        with self._lock:
            trial = self.trial(trial_id)
            if trial.has_moved(state, at=at, reason=reason):
                return trial
            ended = self._trials[trial_id] = trial.to(state, at=at, reason=reason, values=values)
            self._append(ended.sweep_id, "trial", as_data(ended), at)
            return self.trial(trial_id)

    def add_exploits(self, sweep_id: str, exploits: Sequence[Exploit], *, at: datetime) -> None:
        with self._lock:
            trials = {trial.id: trial for trial in self.trials(sweep_id)}
            for exploit in exploits:
                if exploit.trial_id not in trials:
                    raise NotFound(f"there is no trial {exploit.trial_id!r} in sweep {sweep_id}")
            for exploit in exploits:
                trial = trials[exploit.trial_id]
                if any(one.step == exploit.step for one in trial.exploits):
                    continue
                self._trials[trial.id] = through_json(trial.exploited(exploit))
                self._append(sweep_id, "exploit", as_data(exploit), at)

    def measurements(
        self,
        sweep_id: str,
        *,
        trial_id: str | None = None,
        limit: int | None = None,
        after: tuple[str, int] | None = None,
    ) -> list[Measurement]:
        with self._lock:
            place = (self.trial(after[0]).number, after[1]) if after is not None else (-1, 0)
            trials = self.trials(sweep_id)
            if trial_id is not None:
                self.trial(trial_id)
                trials = [trial for trial in trials if trial.id == trial_id]
            return self._measurements.of(trials, after=place)[:limit]

    def curves(self, sweep_id: str, trial_ids: Sequence[str], *, points: int | None = None) -> list[Measurement]:
        with self._lock:
            trials = [trial for trial in self.trials(sweep_id) if trial.id in trial_ids]
            return self._measurements.curves(trials, points=points)

    def add_model_version(
        self,
        *,
        name: str,
        sweep_id: str,
        trial_id: str,
        value: float,
        path: str,
        at: datetime,
        after: int | None = None,
    ) -> ModelVersion:
        with self._lock:
            self.sweep(sweep_id)
            trial = self.trial(trial_id)
            for version in self._models.versions(name):
                if version.trial_id == trial_id:
                    return version
            if trial.weights == "removed":
                raise Conflict(trial.no_weights)
            promoted = max((one.number for one in self._models.promotions(name)), default=0)
            if after not in (None, promoted):
                raise Conflict(f"model {name} is at promotion {promoted}, not {after}")
            added = self._models.add(name, sweep_id=sweep_id, trial_id=trial_id, value=value, path=path, created_at=at)
            self._promoted(added, kind="registered", at=at)
            return added

    def model_versions(self, name: str, *, limit: int | None = None, before: int | None = None) -> list[ModelVersion]:
        with self._lock:
            return self._models.versions(name, before=before)[::-1][:limit]

    def champion(self, name: str) -> ModelVersion:
        with self._lock:
            return self._models.champion(name)

    def promote(self, name: str, version: int, *, at: datetime, by: str = "", reason: str = "") -> Promotion:
        with self._lock:
            champion = self.champion(name)
            if version == champion.version:
                return self._models.promotions(name)[-1]
            return self._promoted(self._models.version(name, version), kind="promoted", at=at, by=by, reason=reason)

    def roll_back(self, name: str, *, at: datetime, by: str = "", reason: str = "") -> Promotion:
        with self._lock:
            chosen = self._models.last_champion(name)
            return self._promoted(chosen, kind="rolled back", at=at, by=by, reason=reason)

    def promotions(self, name: str, *, limit: int | None = None, before: int | None = None) -> list[Promotion]:
        with self._lock:
            return self._models.promotions(name, before=before)[::-1][:limit]

    def models(
        self, *, family: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[ModelVersion]:
        with self._lock:
            return [
                champion
                for champion in self._models.champions()
                if (after is None or champion.name > after)
                and family in (None, self._sweeps[champion.sweep_id].spec.get("family"))
            ][:limit]

    def add_progress(self, sweep_id: str, *, what: str, done: int, total: int, at: datetime) -> None:
        with self._lock:
            self.sweep(sweep_id)
            self._append(sweep_id, "progress", {"what": what, "done": done, "total": total}, at)

    def add_wait(self, sweep_id: str, *, reason: str, at: datetime) -> None:
        with self._lock:
            sweep = self.sweep(sweep_id)
            self._sweeps[sweep_id] = replace(sweep, reason=sweep.reason if sweep.state.final else reason)
            self._append(sweep_id, "wait", {"reason": reason}, at)

    def take_lease(self, name: str, *, holder: str, after: Lease | None) -> Lease | None:
        with self._lock:
            if self._leases.get(name) == after:
                self._leases[name] = Lease(holder=holder, beat=after.beat + 1 if after is not None else 1)
            return self._leases.get(name)

    def events(self, sweep_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        with self._lock:
            self.sweep(sweep_id)
            return [through_json(event) for event in self._events[sweep_id] if event.number > after][:limit]

    def untracked(self) -> list[Sweep]:
        with self._lock:
            return [sweep for sweep in reversed(self.sweeps()) if sweep.tracked < sweep.last_event]

    def set_tracked(self, sweep_id: str, number: int) -> None:
        with self._lock:
            sweep = self.sweep(sweep_id)
            self._sweeps[sweep_id] = replace(sweep, tracked=max(sweep.tracked, number))

    def census(self) -> Census:
        with self._lock:
            return census(self._sweeps, self._trials)

    def _promoted(self, version: ModelVersion, **promotion: Any) -> Promotion:
        promoted = self._models.promote(version, **promotion)
        self._tell(promoted)
        return promoted

    def _tell(self, promotion: Promotion) -> None:
        version = self._models.version(promotion.name, promotion.version)
        self._append(version.sweep_id, "model", {**as_data(version), "promotion": promotion.number}, promotion.at)

    def _append(self, sweep_id: str, kind: EventKind, data: Mapping[str, Any], at: datetime) -> None:
        number = self._sweeps[sweep_id].last_event + 1
        event = Event(sweep_id=sweep_id, number=number, at=at, kind=kind, data=data)
        self._events[sweep_id].append(through_json(event))
        self._sweeps[sweep_id] = replace(self._sweeps[sweep_id], last_event=number)


def _age(sweep: Sweep) -> tuple[datetime, str]:
    return sweep.created_at, sweep.id


def _value(trial: Trial) -> float:
    assert trial.values, "a completed trial has values"
    return trial.values[0]
