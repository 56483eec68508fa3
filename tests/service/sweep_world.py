"""A service without a network: its store, its cluster and its clock."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from service import reconciler, sweeps
from service.adapters.manual_clock import ManualClock
from service.adapters.memory_launcher import MemoryLauncher
from service.adapters.memory_store import MemoryStore
from service.domain import Measurement, ModelVersion, Sweep, SweepState, Trial, TrialState
from service.port_values import Job
from service.submission import Submissions

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}, "search": {"trials": 5}}


class DyingStore(MemoryStore):
    """A store in which the first request dies between its claim and its sweep."""

    died = False

    def add_sweep(self, sweep: Sweep) -> None:
        """Not the first time."""
        if not self.died:
            self.died = True
            raise SystemExit
        super().add_sweep(sweep)


class World:
    """A store, a cluster and a clock, with short names for what tests do to them."""

    def __init__(self, store: MemoryStore, folder: Path = Path("nowhere")) -> None:
        self.store, self.launcher, self.clock = store, MemoryLauncher(), ManualClock()
        self.folder = folder
        self.refused: dict[str, int] = {}
        self._ids = count(1)

    def submit(self, **changes: Any) -> Sweep:
        """A new sweep, a second after the one before."""
        self.clock.advance(1)
        submissions = Submissions(
            store=self.store,
            clock=self.clock,
            weights_root=Path("weights"),
            new_id=lambda: f"sweep{next(self._ids)}",
        )
        return submissions.create(SPEC | changes)

    def trials_folder(self, sweep_id: str) -> Path:
        """Where a sweep's trials keep their checkpoints."""
        return self.folder / sweep_id / "trials"

    def reconcile(self, **limits: int) -> None:
        """A pass."""
        reconciler.reconcile(
            self.store,
            self.launcher,
            clock=self.clock,
            trials_folder=self.trials_folder,
            refused=self.refused,
            **limits,
        )

    def run(self, sweep: Sweep) -> None:
        """Its driver starts."""
        self.reconcile()
        self.launcher.set_job(sweep.id, 1, Job(state="running"))
        self.move(sweep, SweepState.RUNNING)

    def move(self, sweep: Sweep, state: SweepState) -> None:
        """What its driver does."""
        self.store.move_sweep(sweep.id, state, at=self.clock.now())

    def die(self, sweep: Sweep, state: Any = "failed", message: str = "out of memory") -> None:
        """Its newest driver ends without a word to the store."""
        self.launcher.set_job(sweep.id, self.now(sweep).attempt, Job(state=state, message=message))

    def now(self, sweep: Sweep) -> Sweep:
        """The sweep as it is now."""
        return self.store.sweep(sweep.id)

    def trial(self, sweep: Sweep, number: int, value: float | None = None) -> Trial:
        """A trial with a checkpoint; one with a value is completed."""
        trial = Trial(
            id=f"{sweep.id}-{number:04}", sweep_id=sweep.id, number=number, point={}, created_at=self.clock.now()
        )
        self.store.add_trial(trial)
        measured = Measurement(trial_id=trial.id, step=1, at=self.clock.now(), metrics={})
        self.store.add_measurement(measured, checkpoint=f"/sweeps/{trial.id}/checkpoint-000001")
        if value is not None:
            self.store.move_trial(trial.id, TrialState.COMPLETED, at=self.clock.now(), values=(value,))
        return self.store.trial(trial.id)

    def offer(self, trial: Trial) -> ModelVersion | None:
        """The trial as a champion."""
        return sweeps.offer_champion(self.store, trial.id, at=self.clock.now())
