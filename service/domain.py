"""The nouns of the service: sweeps, trials, measurements, events, model versions.

Everything here is a frozen value. A state changes by `sweep.to(state)` or `trial.to(state)`, which give a new value or
raise; one table of legal moves each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from service.errors import IllegalMove


class SweepState(StrEnum):
    """Where a sweep is."""

    QUEUED = "queued"
    """It waits for a driver."""
    STARTING = "starting"
    """Its driver was launched and has not reported yet."""
    RUNNING = "running"
    PAUSING = "pausing"
    """No trial is begun any more; those that run end at their next report, and go on later."""
    PAUSED = "paused"
    STOPPING = "stopping"
    """No trial is begun any more; those that run end at their next report, for good."""
    CANCELLING = "cancelling"
    """Its trials are ended at once."""
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"
    """It is being removed, with all that belongs to it."""

    @property
    def final(self) -> bool:
        """Nothing more happens to a sweep in this state by itself."""
        return self in (SweepState.COMPLETED, SweepState.STOPPED, SweepState.FAILED)

    @property
    def driven(self) -> bool:
        """A sweep in this state has a driver."""
        return self in _DRIVEN


_DRIVEN = frozenset(
    {SweepState.STARTING, SweepState.RUNNING, SweepState.PAUSING, SweepState.STOPPING, SweepState.CANCELLING}
)


class TrialState(StrEnum):
    """Where a trial is."""

    RUNNING = "running"
    PAUSED = "paused"
    """It goes on from its checkpoint when its sweep does."""
    COMPLETED = "completed"
    PRUNED = "pruned"
    """Ended early by the pruner."""
    STOPPED = "stopped"
    """Ended early with its sweep, by the user or the time budget."""
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """The trial will not run again by itself."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED)


def _moves() -> Mapping[SweepState, frozenset[SweepState]]:
    s = SweepState
    ended = frozenset({s.QUEUED, s.DELETING})
    return {
        s.QUEUED: frozenset({s.STARTING, s.RUNNING, s.PAUSED, s.STOPPED, s.FAILED, s.DELETING}),
        s.STARTING: frozenset({s.RUNNING, s.PAUSING, s.STOPPING, s.CANCELLING, s.FAILED}),
        s.RUNNING: frozenset({s.PAUSING, s.STOPPING, s.CANCELLING, s.COMPLETED, s.FAILED}),
        s.PAUSING: frozenset({s.PAUSED, s.STOPPING, s.CANCELLING, s.COMPLETED, s.FAILED}),
        s.PAUSED: frozenset({s.QUEUED, s.STOPPED, s.DELETING}),
        s.STOPPING: frozenset({s.CANCELLING, s.STOPPED, s.FAILED}),
        s.CANCELLING: frozenset({s.STOPPED, s.FAILED}),
        s.COMPLETED: ended,
        s.STOPPED: ended,
        s.FAILED: ended,
        s.DELETING: frozenset(),
    }


INITIAL_WEIGHTS = "train.initial_weights"
"""The setting by which a trial may start from another one's weights: `trial:ID`."""
SWEEP_MOVES = _moves()
"""What may follow each state of a sweep."""
TRIAL_MOVES: Mapping[TrialState, frozenset[TrialState]] = {
    TrialState.RUNNING: frozenset(TrialState) - {TrialState.RUNNING},
    TrialState.PAUSED: frozenset({TrialState.RUNNING, TrialState.STOPPED, TrialState.FAILED}),
    TrialState.STOPPED: frozenset({TrialState.PAUSED}),
    TrialState.FAILED: frozenset({TrialState.PAUSED}),
    TrialState.COMPLETED: frozenset(),
    TrialState.PRUNED: frozenset(),
}
"""What may follow each state of a trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search: a checked spec (plain data, every default filled in) and how far it got."""

    id: str
    name: str
    spec: Mapping[str, Any]
    state: SweepState = SweepState.QUEUED
    reason: str = ""
    revision: int = 0
    """How often its spec has been changed."""
    attempt: int = 0
    """How many drivers have been launched for it."""
    deaths: int = 0
    """How many of them died since it was queued, or a trial got on, for the last time."""
    created_at: datetime
    started_at: datetime | None = None
    """When it ran for the first time."""
    running_since: datetime | None = None
    """When it ran again after it was queued last; None: it does not run."""
    ran: float = 0.0
    """Seconds that it ran before that."""
    finished_at: datetime | None = None
    moved_at: datetime | None = None
    """When it came into its present state; None: it is in its first one."""
    last_event: int = 0
    """The number of its newest event; events are numbered 1, 2, 3, ... within a sweep."""
    tracked: int = 0
    """The number of the newest event that the tracker has."""
    trace: str = ""
    """The `traceparent` of the request that submitted it."""

    def to(self, state: SweepState, *, at: datetime, reason: str = "") -> Self:
        """The sweep in another state.

        Raises:
            IllegalMove: the state cannot follow the present one.
        """
        if state not in SWEEP_MOVES[self.state]:
            raise IllegalMove(f"sweep {self.id} is {self.state} and cannot become {state}")
        begins = state is SweepState.RUNNING
        return replace(
            self,
            state=state,
            reason=_text(reason),
            deaths=0 if state is SweepState.QUEUED else self.deaths,
            started_at=self.started_at or (at if begins else None),
            running_since=at if begins else self.running_since if state.driven else None,
            ran=self.ran if state.driven else self.seconds_run(at),
            finished_at=at if state.final else None,
            moved_at=at,
        )

    @property
    def priority(self) -> int:
        """Of the sweeps that are queued, those with most are launched first; equals by age."""
        return int(self.spec.get("resources", {}).get("priority", 0))

    @property
    def starts_from(self) -> frozenset[str]:
        """Ids of the trials whose weights its own may start from."""
        fixed, searched = self.spec.get("fixed", {}), self.spec.get("space", {})
        named = [fixed.get(INITIAL_WEIGHTS), *searched.get(INITIAL_WEIGHTS, {}).get("values", ())]
        return frozenset(one.removeprefix("trial:") for one in named if isinstance(one, str) and one[:6] == "trial:")

    def seconds_run(self, at: datetime) -> float:
        """How long it has run by then, without the times that it was queued, paused or ended.

        A time before it ran, which a clock that was put back gives, counts as its beginning.
        """
        return self.ran + (
            max(0.0, (at - self.running_since).total_seconds()) if self.running_since is not None else 0.0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploit:
    """Population-based training: a trial took over another's weights and went on with other settings."""

    trial_id: str
    step: int
    """After this one, which is the last of its own weights."""
    source: str
    """Id of the trial whose weights, as they were after that step, it took over."""
    before: Mapping[str, Any]
    """Its point until then."""
    point: Mapping[str, Any]
    """Its point from then on."""
    checkpoint: str
    """Folder with the other's checkpoint under its own settings: from there it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of a sweep: its parameters, its state, and its value once it has one."""

    id: str
    sweep_id: str
    number: int
    """0, 1, 2, ... within the sweep, in the order in which the points were chosen."""
    repeat: int = 0
    """0, 1, 2, ... among the trials of its point, which have numbers in a row and differ in their seeds only."""
    point: Mapping[str, Any]
    """The searched parameters, by dotted name, as they are now."""
    exploits: tuple[Exploit, ...] = ()
    """What population-based training made of it, by step; its values are of what it reached since the last one."""
    state: TrialState = TrialState.RUNNING
    reason: str = ""
    values: tuple[float, ...] | None = None
    """One a objective, in the spec's order, measured with the weights that were kept; None: not known yet."""
    step: int = 0
    """Epochs done."""
    checkpoint: str | None = None
    """Folder of its newest checkpoint: it continues from there, and its kept weights are served from there. None: it
    has written none yet; empty: it was removed, since nothing needs it."""
    created_at: datetime
    finished_at: datetime | None = None

    @property
    def over(self) -> bool:
        """It never goes on, whatever its sweep does."""
        return not TRIAL_MOVES[self.state]

    @property
    def weights(self) -> Literal["none", "kept", "removed"]:
        """Whether there is a checkpoint of it."""
        return "none" if self.checkpoint is None else "kept" if self.checkpoint else "removed"

    @property
    def no_weights(self) -> str:
        """Why it has none, for people."""
        if self.weights == "none":
            return f"trial {self.id} kept no weights"
        return f"the weights of trial {self.id} were removed: it is none of its sweep's best (resources.keep_best)"

    def to(self, state: TrialState, *, at: datetime, reason: str = "", values: tuple[float, ...] | None = None) -> Self:
        """The trial in another state.

        Raises:
            IllegalMove: the state cannot follow the present one.
            ValueError: a completed trial without finite values.
        """
        if state not in TRIAL_MOVES[self.state]:
            raise IllegalMove(f"trial {self.id} is {self.state} and cannot become {state}")
        values = values if values is not None else self.values
        if state is TrialState.COMPLETED and (not values or not all(map(math.isfinite, values))):
            raise ValueError(f"a completed trial needs finite values, got {values}")
        return replace(self, state=state, reason=_text(reason), values=values, finished_at=at if state.final else None)

    def has_moved(self, state: TrialState, *, at: datetime, reason: str = "") -> bool:
        """This very move has been made: whoever asks for it again never heard so."""
        then = at if state.final else None
        return (self.state, self.reason, self.finished_at) == (state, _text(reason), then)

    def exploited(self, exploit: Exploit) -> Self:
        """The trial once it has taken over another's weights."""
        return replace(
            self,
            point=exploit.point,
            exploits=(*self.exploits, exploit),
            values=None,
            checkpoint=exploit.checkpoint,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one trial reported at one step (by default an epoch; counted from 1)."""

    trial_id: str
    step: int
    at: datetime
    metrics: Mapping[str, float]
    """By name, `validation/accuracy`; NaN and infinities are legal here."""


EventKind = Literal["sweep", "trial", "measurement", "model", "progress", "wait", "exploit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a sweep: what `watch` shows and the tracker sends to MLflow."""

    sweep_id: str
    number: int
    at: datetime
    kind: EventKind
    data: Mapping[str, Any]
    """By kind: `sweep` {state, reason}, of an extension also {spec}, as it is from now on; `trial` the whole trial by
    `as_data`; `measurement` {trial_id, step, metrics}; `model` the new champion by `as_data`, with the number of its
    `promotion`; `progress` {what, done, total}; `wait` {reason}, why no trial begins, empty where they begin again;
    `exploit` the exploit by `as_data`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A trial's kept weights under a model's name. Its newest `Promotion` says which version is the champion."""

    name: str
    version: int
    sweep_id: str
    trial_id: str
    value: float
    path: str
    """Folder with the saved model."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A version became its model's champion."""

    name: str
    number: int
    """Within the model, in the order in which they happened: 1, 2, 3, ..., with gaps where sweeps were deleted."""
    version: int
    kind: Literal["registered", "promoted", "rolled back"]
    """By a better trial, by a person, or by a person who undid the last promotion that was not undone."""
    at: datetime
    by: str = ""
    """Who asked for it; empty: nobody did."""
    reason: str = ""


def as_data(value: Sweep | Trial | ModelVersion | Exploit) -> dict[str, Any]:
    """The value as plain data by field name: states as text, times in ISO 8601, tuples as lists."""
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Exploit):
        return as_data(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _text(reason: str) -> str:
    # The last words of a crashed process may hold what no database takes: NUL and halves of characters.
    return reason.encode("utf-8", "replace").decode().replace("\0", "")
