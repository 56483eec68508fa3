"""What the core needs of the world, as protocols. Each has one real implementation and one real fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

from service.domain import Event, Job, Measurement, ModelVersion, Sweep, SweepState, Trial, TrialState


class Clock(Protocol):
    """The time, and waiting; tests move it by hand."""

    def now(self) -> datetime:
        """The time in UTC."""

    def sleep(self, seconds: float) -> None:
        """Returns after that many seconds."""


class Store(Protocol):
    """The truth. Every method is one transaction; every change that a watcher should see appends its event in it.

    Returned values are copies. Methods that take an id raise `NotFound` where it names nothing; all raise
    `Unavailable` where the store does not answer.
    """

    def add_sweep(self, sweep: Sweep) -> None:
        """Keeps a new sweep (event `sweep`). Raises Conflict where its id is taken."""

    def sweep(self, sweep_id: str) -> Sweep:
        """The sweep of this id."""

    def sweeps(
        self,
        *,
        states: Sequence[SweepState] = (),
        name: str | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[Sweep]:
        """Newest first; `before` is the id after which a page goes on. No states: all."""

    def move_sweep(self, sweep_id: str, state: SweepState, *, at: datetime, reason: str = "") -> Sweep:
        """Moves the sweep by `Sweep.to` (event `sweep`), atomically against other movers. Raises IllegalMove."""

    def count_attempt(self, sweep_id: str, *, after: int | None = None) -> int:
        """Adds one to the sweep's attempts and returns the new number.

        Raises:
            Conflict: `after` is given and the sweep has another number of attempts.
        """

    def add_trial(self, trial: Trial) -> None:
        """Keeps a new trial (event `trial`). A trial that is there already is left as it is, without an event.

        Raises:
            Conflict: another trial of the sweep has its number.
        """

    def trial(self, trial_id: str) -> Trial:
        """The trial of this id."""

    def trials(self, sweep_id: str, *, states: Sequence[TrialState] = ()) -> list[Trial]:
        """The sweep's trials by number. No states: all."""

    def count_trials(self, sweep_id: str) -> dict[TrialState, int]:
        """How many trials the sweep has in each state; a state without any is left out."""

    def best_trials(self, sweep_id: str, *, mode: Literal["min", "max"], limit: int | None = None) -> list[Trial]:
        """The sweep's completed trials by their first value, best first; equals by number."""

    def add_measurement(self, measurement: Measurement, *, checkpoint: str | None = None) -> bool:
        """Keeps what a trial reported and where its newest checkpoint is (event `measurement`).

        The first report of a step stays: a repeat changes nothing but the checkpoint, and the answer is False.
        """

    def finish_trial(
        self,
        trial_id: str,
        state: TrialState,
        *,
        at: datetime,
        reason: str = "",
        values: tuple[float, ...] | None = None,
    ) -> Trial:
        """Moves the trial by `Trial.to` (event `trial`). Raises IllegalMove."""

    def measurements(self, sweep_id: str, *, trial_id: str | None = None) -> list[Measurement]:
        """By the trials' numbers, then by step."""

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
        """Numbers (1, 2, ...) and keeps a new version of a model (event `model`); it is the champion from now on.

        The same trial's version again is returned as it was, without an event.

        Raises:
            Conflict: `after` is given and is not the newest version (0: none yet).
        """

    def model_versions(self, name: str) -> list[ModelVersion]:
        """Newest first; empty where the model does not exist."""

    def models(self) -> list[ModelVersion]:
        """The champion of every model, by name."""

    def add_progress(self, sweep_id: str, *, what: str, done: int, total: int, at: datetime) -> None:
        """Tells watchers how far some long preparation is (event `progress`)."""

    def events(self, sweep_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """The sweep's events numbered above `after`, in order."""

    def untracked(self) -> list[Sweep]:
        """Sweeps with events that the tracker does not have yet, oldest first."""

    def set_tracked(self, sweep_id: str, number: int) -> None:
        """The tracker now has every event up to this number; never goes back."""


class Launcher(Protocol):
    """Runs sweep drivers on a cluster."""

    def launch(self, sweep_id: str, attempt: int) -> None:
        """Starts the driver; asking again for the same attempt starts nothing. Raises Unavailable."""

    def job(self, sweep_id: str, attempt: int) -> Job:
        """How that driver is. Raises Unavailable."""

    def stop(self, sweep_id: str, attempt: int) -> None:
        """Ends that driver at once, if it still runs. Raises Unavailable."""

    def logs(self, sweep_id: str, attempt: int) -> str:
        """What that driver printed so far. Raises Unavailable."""

    def resources(self) -> Mapping[str, float]:
        """What the cluster has in all, as `{"CPU": 2, "GPU": 0}`. Raises Unavailable."""


class Tracker(Protocol):
    """A projection of sweeps for browsing; may be down at any time."""

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        """Shows these events, in order. Asking again with the same events changes nothing.

        Raises:
            Unavailable: not all are shown; ask again later with the same ones.
        """

    def url(self, sweep: Sweep) -> str | None:
        """Where a person can look at the sweep."""
