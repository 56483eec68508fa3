"""The nouns of the service: sweeps, trials, measurements, events, model versions; and what may go wrong.

Everything here is a frozen value. A state changes by `sweep.to(state)` or `trial.to(state)`, which give a new value or
raise; one table of legal moves each.

Errors, all the service's own:

    ServiceError
    |- NotFound          no such sweep, trial or model
    |- Conflict          the thing is there, but not in a state that allows this
    |  `- IllegalMove
    |- InvalidSpec       a spec broke rules; lists every fault
    |- BadImage          bytes that are not an image we can decode
    |- TooLarge          a body, an image or a batch over its limit
    `- Unavailable       something that we depend on does not answer; trying again later may help
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from trainables.config import Fault


class ServiceError(Exception):
    """Root of every error that a client can cause or should hear of."""


class NotFound(ServiceError):  # noqa: N818 - named as the domain speaks
    """No such sweep, trial or model."""


class Conflict(ServiceError):  # noqa: N818
    """The thing is there, but not in a state that allows this."""


class IllegalMove(Conflict):
    """A state cannot follow another."""


class InvalidSpec(ServiceError):  # noqa: N818
    """A spec broke rules; `faults` lists every one, each with its JSON pointer."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


class BadImage(ServiceError):  # noqa: N818
    """Bytes that are not an image we can decode."""


class TooLarge(ServiceError):  # noqa: N818
    """A body, an image or a batch over its limit."""


class Unavailable(ServiceError):  # noqa: N818
    """Something that the service depends on does not answer; trying again later may help."""


class SweepState(StrEnum):
    """Where a sweep is. `QUEUED` waits for its driver; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Nothing more happens to a sweep in this state by itself."""
        return self in (SweepState.COMPLETED, SweepState.STOPPED, SweepState.FAILED)


class TrialState(StrEnum):
    """Where a trial is. `PRUNED` was ended early by the pruner, `STOPPED` by the user or the time budget."""

    RUNNING = "running"
    COMPLETED = "completed"
    PRUNED = "pruned"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """The trial will not run again by itself."""
        return self is not TrialState.RUNNING


SWEEP_MOVES: Mapping[SweepState, frozenset[SweepState]] = {
    SweepState.QUEUED: frozenset({SweepState.RUNNING, SweepState.STOPPED, SweepState.FAILED}),
    SweepState.RUNNING: frozenset({SweepState.STOPPING, SweepState.COMPLETED, SweepState.FAILED}),
    SweepState.STOPPING: frozenset({SweepState.STOPPED, SweepState.FAILED}),
    SweepState.COMPLETED: frozenset(),
    SweepState.STOPPED: frozenset(),
    SweepState.FAILED: frozenset(),
}
TRIAL_MOVES: Mapping[TrialState, frozenset[TrialState]] = {
    TrialState.RUNNING: frozenset(TrialState) - {TrialState.RUNNING},
    **{state: frozenset() for state in TrialState if state is not TrialState.RUNNING},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search: a checked spec (plain data, every default filled in) and how far it got."""

    id: str
    name: str
    spec: Mapping[str, Any]
    state: SweepState = SweepState.QUEUED
    reason: str = ""
    attempt: int = 0
    """How many drivers have been launched for it."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    moved_at: datetime | None = None
    """When it came into its present state; None: it is in its first one."""
    last_event: int = 0
    """The number of its newest event; events are numbered 1, 2, 3, ... within a sweep."""
    tracked: int = 0
    """The number of the newest event that the tracker has."""

    def to(self, state: SweepState, *, at: datetime, reason: str = "") -> Self:
        """The sweep in another state.

        Raises:
            IllegalMove: the state cannot follow the present one.
        """
        if state not in SWEEP_MOVES[self.state]:
            raise IllegalMove(f"sweep {self.id} is {self.state} and cannot become {state}")
        return replace(
            self,
            state=state,
            reason=_text(reason),
            started_at=at if state is SweepState.RUNNING else self.started_at,
            finished_at=at if state.final else None,
            moved_at=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of a sweep: its parameters, its state, and its value once it has one."""

    id: str
    sweep_id: str
    number: int
    """0, 1, 2, ... within the sweep, in the order in which the points were chosen."""
    point: Mapping[str, Any]
    """The searched parameters, by dotted name."""
    state: TrialState = TrialState.RUNNING
    reason: str = ""
    values: tuple[float, ...] | None = None
    """One a objective, in the spec's order, measured with the weights that were kept; None: not known yet."""
    step: int = 0
    """Epochs done."""
    checkpoint: str | None = None
    """Folder of its newest checkpoint: it continues from there, and its kept weights are served from there."""
    created_at: datetime
    finished_at: datetime | None = None

    def to(self, state: TrialState, *, at: datetime, reason: str = "", values: tuple[float, ...] | None = None) -> Self:
        """The trial in a final state.

        Raises:
            IllegalMove: the state cannot follow the present one.
            ValueError: a completed trial without finite values.
        """
        if state not in TRIAL_MOVES[self.state]:
            raise IllegalMove(f"trial {self.id} is {self.state} and cannot become {state}")
        values = values if values is not None else self.values
        if state is TrialState.COMPLETED and (not values or not all(map(math.isfinite, values))):
            raise ValueError(f"a completed trial needs finite values, got {values}")
        return replace(self, state=state, reason=_text(reason), values=values, finished_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one trial reported at one step (an epoch, counted from 1)."""

    trial_id: str
    step: int
    at: datetime
    metrics: Mapping[str, float]
    """By name, `validation/accuracy`; NaN and infinities are legal here."""


EventKind = Literal["sweep", "trial", "measurement", "model", "progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a sweep: what `watch` shows and the tracker sends to MLflow."""

    sweep_id: str
    number: int
    at: datetime
    kind: EventKind
    data: Mapping[str, Any]
    """By kind: `sweep` {state, reason}; `trial` the whole trial by `as_data`; `measurement` {trial_id, step, metrics};
    `model` the whole model version by `as_data`; `progress` {what, done, total}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A trial's kept weights under a model's name; the newest version is the champion."""

    name: str
    version: int
    sweep_id: str
    trial_id: str
    value: float
    path: str
    """Folder with the saved model."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the cluster says of a sweep's driver."""

    state: Literal["pending", "running", "succeeded", "failed", "stopped", "missing"]
    message: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self.state in ("pending", "running")


def as_data(value: Sweep | Trial | ModelVersion) -> dict[str, Any]:
    """The value as plain data by field name: states as text, times in ISO 8601, tuples as lists."""
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _text(reason: str) -> str:
    # The last words of a crashed process may hold what no database takes: NUL and halves of characters.
    return reason.encode("utf-8", "replace").decode().replace("\0", "")
