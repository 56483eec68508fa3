"""What the core needs of the world, as protocols. Each has one real implementation and one real fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from service.domain import Event, Exploit, Measurement, ModelVersion, Promotion, Sweep, SweepState, Trial, TrialState
from service.port_values import Ahead, Census, Claim, Job, Lease


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
        """Keeps a new sweep (event `sweep`).

        Raises:
            Conflict: its id is taken, or the weights of a trial that it starts from have been removed, or are removed
                with their sweep.
        """

    def claim(self, claim: Claim, *, expired_before: datetime) -> Claim:
        """Keeps the claim, unless its key is claimed since `expired_before`, and returns the claim that holds.

        Of callers that come at once, all get the same one. Claims that have expired are forgotten.
        """

    def claimed(self, key: str, *, since: datetime) -> Claim | None:
        """The claim that holds for the key; None: it has not been claimed since then."""

    def sweep(self, sweep_id: str) -> Sweep:
        """The sweep of this id."""

    def sweeps(
        self,
        *,
        states: Sequence[SweepState] = (),
        name: str | None = None,
        family: str | None = None,
        limit: int | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> list[Sweep]:
        """Newest first; a page goes on after the one made at this time, of this id. No states: all."""

    def queue(self, *, limit: int) -> list[Sweep]:
        """The queued sweeps that are launched next, at most so many: by priority, then by age."""

    def ahead(self, sweep_id: str) -> Ahead:
        """What is before this sweep, without reading the others."""

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
        """Moves the sweep by `Sweep.to` (event `sweep`), atomically against other movers.

        Its trials in the states of `trial_moves` are moved as they say (event `trial` each): they and the sweep, or
        none of them.

        Raises:
            IllegalMove: the state cannot follow the present one.
            Conflict: it has another driver or another spec by now than in `seen`; `after` is given and it is in another
                state; or it would be deleted while a sweep that has not ended starts from one of its trials.
        """

    def change_spec(self, sweep_id: str, spec: Mapping[str, Any], *, seen: Sweep, at: datetime) -> Sweep:
        """Gives the sweep another spec and adds one to its revision (event `sweep`, with the spec).

        Raises:
            Conflict: its spec or its state has been changed since `seen`, or it is being deleted.
        """

    def delete_sweep(self, sweep_id: str) -> None:
        """Removes the sweep and everything that belongs to it, its model versions too.

        Where one of them was the champion, a version that is left is it now (event `model`).
        """

    def count_attempt(self, sweep_id: str, *, after: int | None = None, died: bool = False) -> int:
        """Adds one to the sweep's attempts, and to its deaths if its last driver `died`; returns the new attempt.

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

    def trials(
        self,
        sweep_id: str,
        *,
        states: Sequence[TrialState] = (),
        numbers: Sequence[int] | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> list[Trial]:
        """The sweep's trials by number, those above `after`. No states: all; None: of all numbers."""

    def count_trials(self, sweep_id: str) -> dict[TrialState, int]:
        """How many trials the sweep has in each state; a state without any is left out."""

    def completed(self, sweep_id: str) -> list[int]:
        """The numbers of the sweep's completed trials, in any order."""

    def best_trials(
        self,
        sweep_id: str,
        *,
        mode: Literal["min", "max"],
        limit: int | None = None,
        after: tuple[float, int] | None = None,
    ) -> list[Trial]:
        """The sweep's completed trials by their first value, best first; equals by number.

        A page goes on after the place of a trial with this value and number.
        """

    def add_measurement(self, measurement: Measurement, *, checkpoint: str | None = None) -> bool:
        """Keeps what a trial reported and where its newest checkpoint is (event `measurement`).

        The sweep gets on, and has no deaths any more. The first report of a step stays: a repeat changes nothing but
        the checkpoint, and the answer is False. The checkpoint of a trial that is over stays as it is.
        """

    def forget_checkpoint(self, trial_id: str) -> bool:
        """Forgets where a trial's checkpoint is, and answers whether it is forgotten and its folder may go.

        It stays where somebody needs it: the trial may go on, it is a version of a model, or a sweep that is not being
        deleted starts from it.
        """

    def move_trial(
        self,
        trial_id: str,
        state: TrialState,
        *,
        at: datetime,
        reason: str = "",
        values: tuple[float, ...] | None = None,
    ) -> Trial:
        """Moves the trial by `Trial.to` (event `trial`). Raises IllegalMove.

        A move that has been made already (`Trial.has_moved`) changes nothing, and makes no event.
        """

    def add_exploits(self, sweep_id: str, exploits: Sequence[Exploit], *, at: datetime) -> None:
        """Moves trials of the sweep on by `Trial.exploited`, all of them or none (event `exploit` each).

        What a trial has exploited at that step already stays as it is, without an event.
        """

    def measurements(
        self,
        sweep_id: str,
        *,
        trial_id: str | None = None,
        limit: int | None = None,
        after: tuple[str, int] | None = None,
    ) -> list[Measurement]:
        """By the trials' numbers, then by step; a page goes on after this trial's step."""

    def curves(self, sweep_id: str, trial_ids: Sequence[str], *, points: int | None = None) -> list[Measurement]:
        """The measurements of these trials, by number, then by step.

        `points`: at most so many of each trial, evenly spaced back from its last step.
        """

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

        No number is given twice, also after the sweep that had it was deleted: whoever noted it means that version.
        The same trial's version again is returned as it was, without an event or a promotion.

        Raises:
            Conflict: `after` is given and is not the number of the model's newest promotion (0: none yet); or the
                trial's weights have been removed.
        """

    def model_versions(self, name: str, *, limit: int | None = None, before: int | None = None) -> list[ModelVersion]:
        """Newest first, those below `before`; empty where the model does not exist."""

    def champion(self, name: str) -> ModelVersion:
        """The version that answers in the name of the model."""

    def promote(self, name: str, version: int, *, at: datetime, by: str = "", reason: str = "") -> Promotion:
        """Makes a version the champion (event `model`); what is the champion already stays so, without an event."""

    def roll_back(self, name: str, *, at: datetime, by: str = "", reason: str = "") -> Promotion:
        """Undoes the last promotion that stands (event `model`): the champion before it is the champion again.

        Raises:
            Conflict: there was no other champion.
        """

    def promotions(self, name: str, *, limit: int | None = None, before: int | None = None) -> list[Promotion]:
        """The changes of the model's champion, newest first, those below `before`; empty where there is no model."""

    def models(
        self, *, family: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[ModelVersion]:
        """The champion of every model, by name, from the one after this name on; of a family those it came from."""

    def add_progress(self, sweep_id: str, *, what: str, done: int, total: int, at: datetime) -> None:
        """Tells watchers how far some long preparation is (event `progress`)."""

    def add_wait(self, sweep_id: str, *, reason: str, at: datetime) -> None:
        """Tells why a sweep that has not ended does not go on; empty: it does again (event `wait`).

        Until its next move or wait it is the reason of the sweep.
        """

    def take_lease(self, name: str, *, holder: str, after: Lease | None) -> Lease | None:
        """Takes or renews the lease, its beat one higher, if it is still as `after`, and returns it as it is now.

        None in and out: there is none. A caller who does not hold it passes what it saw last, once that has not changed
        for too long; whoever comes first with it wins. No two machines' clocks need to agree for that.
        """

    def events(self, sweep_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """The sweep's events numbered above `after`, in order."""

    def untracked(self) -> list[Sweep]:
        """Sweeps with events that the tracker does not have yet, oldest first."""

    def set_tracked(self, sweep_id: str, number: int) -> None:
        """The tracker now has every event up to this number; never goes back."""

    def census(self) -> Census:
        """How many there are of what."""


class Launcher(Protocol):
    """Runs sweep drivers on a cluster."""

    def launch(self, sweep_id: str, attempt: int, *, trace: str = "") -> None:
        """Starts the driver; asking again for the same attempt starts nothing. Raises Unavailable.

        `trace` is the `traceparent` of the request that the sweep came with.
        """

    def job(self, sweep_id: str, attempt: int) -> Job:
        """How that driver is. Raises Unavailable."""

    def stop(self, sweep_id: str, attempt: int) -> None:
        """Ends that driver at once, if it still runs. Raises Unavailable."""

    def logs(self, sweep_id: str, attempt: int) -> str:
        """What that driver printed so far. Raises Unavailable."""

    def resources(self) -> Mapping[str, float]:
        """What the cluster has in all, as `{"CPU": 2, "GPU": 0}`. Raises Unavailable."""

    def nodes(self) -> Sequence[Mapping[str, float]]:
        """What each living node has in all. Raises Unavailable."""


class Tracker(Protocol):
    """A projection of sweeps for browsing; may be down at any time."""

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        """Shows these events, in order. Asking again with the same events changes nothing.

        Raises:
            Unavailable: not all are shown; ask again later with the same ones.
        """

    def forget(self, sweep: Sweep) -> None:
        """Shows the sweep no more. Asking again changes nothing. Raises Unavailable."""

    def url(self, sweep: Sweep) -> str | None:
        """Where a person can look at the sweep."""
