"""A running sweep that a test steps by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.disk import Disk
from service.domain import Sweep, SweepState, Trial
from service.driver.recorder import Recorder
from service.driver.run import Run
from service.spec import SweepSpec
from trainables.trainable import Report, TrialSettings

SPEC = {
    "name": "little",
    "family": "narrow_resnet",
    "data": {"name": "digits"},
    "fixed": {"train.max_epochs": 16},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}},
    "search": {"trials": 4},
    "stop": {"pruner": "none"},
}
LEARNING_RATE = {"train.learning_rate": 0.01}


class Harness:
    """A run on a store in memory, as the driver would make it; `again` is the next driver's."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.spec = SweepSpec.from_dict({**SPEC, **changes})
        self.store, self.clock, self.folder = MemoryStore(), ManualClock(), folder
        self.free = 10**11
        sweep = Sweep(id="s", name="little", spec=self.spec.to_dict(), created_at=self.clock.now())
        earlier = Trial(id="t-0001", sweep_id="t", number=1, point={}, created_at=sweep.created_at)
        self.store.add_sweep(replace(sweep, id="t", spec={}))
        self.store.add_trial(earlier)
        self.store.add_sweep(sweep)
        self.store.move_sweep("s", SweepState.RUNNING, at=self.clock.now())
        self.again()

    def again(self) -> Run:
        self.recorder = Recorder(self.store, self.clock)
        self.run = Run(
            self.store.sweep("s"),
            self.spec,
            trials=self.store.trials("s"),
            measurements=self.store.measurements("s"),
            folder=self.folder,
            data_root=self.folder,
            weights_root=self.folder,
            referenced_weights={"trial:t-0001": "there"},
            recorder=self.recorder,
            clock=self.clock,
            disk=Disk(self.folder, "10GB", lambda _: SimpleNamespace(total=10**11, free=self.free)),
        )
        return self.run

    def start(self) -> TrialSettings:
        settings = self.run.start()
        assert not isinstance(settings, str)
        return settings

    def report(self, trial_id: str, step: int, accuracy: float, **changes: Any) -> bool:
        metrics = {"validation/accuracy": accuracy}
        report: dict[str, Any] = {
            "step": step,
            "metrics": metrics,
            "checkpoint": str(self.folder / trial_id / f"checkpoint-{step:06}"),
            "best_step": step,
            "best_metrics": metrics,
            "finished": None,
            "diverged": False,
        }
        return self.run.report(trial_id, Report(**{**report, **changes}))  # type: ignore[typeddict-item]

    def fail_one(self) -> None:
        self.run.fail(self.start()["trial_id"], "no reason")

    def waits(self) -> list[str]:
        """What watchers were told of waiting."""
        self.recorder.close()
        self.recorder = self.run._recorder = Recorder(self.store, self.clock)
        return [str(event.data["reason"]) for event in self.store.events("s") if event.kind == "wait"]

    def trials(self) -> list[Trial]:
        self.recorder.close()
        return self.store.trials("s")
