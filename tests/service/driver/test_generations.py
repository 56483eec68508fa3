"""Population-based training by a driver and real trainings, without Ray: what a look does, what a killed one loses."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.disk import Disk
from service.domain import Sweep, SweepState, Trial, TrialState
from service.driver import generations
from service.driver import run as driver
from service.driver.recorder import Recorder
from service.driver.run import Run
from service.population import Copy
from service.spec import SweepSpec
from tests.service.driver.run_harness import Harness
from trainables import checkpoint
from trainables.reported import VOLATILE
from trainables.saved_model import DESCRIPTION
from trainables.trainable import Report, TrialTrainable

RATE = "train.learning_rate"
SPEC: Mapping[str, Any] = {
    "name": "population",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 8, "train": 64, "validation": 60, "test": 32},
    "fixed": {"model.channels": [2, 4, 4, 4], "train.batch_size": 16, "train.max_epochs": 5},
    "space": {RATE: {"kind": "float", "low": 1e-5, "high": 1e-1, "log": True}},
    "search": {"trials": 4, "pbt": {"interval": 2}},
    "objectives": [{"metric": "validation/loss", "mode": "min"}],
}

ASKED = 400
"""Times at most that a run is asked for a trial; each waits 0.05 s for a look at the population to end."""


class Fading:
    """A store that stops to answer for ever at its write number `writes`, as to a driver that is killed then."""

    WRITES = ("add_trial", "add_measurement", "move_trial", "add_exploits", "add_model_version")

    def __init__(self, store: MemoryStore, writes: int | None) -> None:
        self._store, self._left = store, writes
        self.gone = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name in self.WRITES and self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.gone.set()
                threading.Event().wait()
        return getattr(self._store, name)


class Population:
    """A sweep whose drivers and workers are this process; a worker at a time."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.spec, self.folder = SweepSpec.from_dict({**SPEC, **changes}), folder
        self.store, self.clock = MemoryStore(), ManualClock()
        self.store.add_sweep(Sweep(id="s", name="population", spec=self.spec.to_dict(), created_at=self.clock.now()))
        self.store.move_sweep("s", SweepState.RUNNING, at=self.clock.now())
        self.worker: TrialTrainable | None = None
        self.order: list[tuple[int, int]] = []
        """Every step that was reported, by trial."""

    def drive(
        self, *, writes: int | None = None, draining_after: int | None = None, store: MemoryStore | None = None
    ) -> Run | None:
        """A driver, to the end of the sweep, or until the store has taken so many writes and no trial can go on."""
        fading: Any = Fading(store or self.store, writes)
        recorder = Recorder(fading, self.clock)
        run = Run(
            self.store.sweep("s"),
            self.spec,
            trials=self.store.trials("s"),
            measurements=self.store.measurements("s"),
            folder=self.folder / "trials",
            data_root=self.folder.parent / "data",
            weights_root=self.folder,
            referenced_weights={},
            recorder=recorder,
            clock=self.clock,
            disk=Disk(self.folder, "0"),
        )
        for _ in range(ASKED):
            settings = run.start()
            if settings == "never":
                break
            if settings == "later":
                if fading.gone.is_set():
                    return None
                continue
            worker = self._worker(dict(settings))
            for _ in range(SPEC["fixed"]["train.max_epochs"]):
                report = worker.step()["report"]
                self.order.append((int(settings["trial_id"][-1]), report["step"]))
                if len(self.order) == draining_after:
                    run.drain(pause=True)
                if run.report(settings["trial_id"], report):
                    break
        else:
            pytest.fail("the population neither ends nor goes on")
        run.close("the sweep ended")
        if fading.gone.is_set():
            return None
        recorder.close()
        return run

    def _worker(self, settings: dict[str, Any]) -> TrialTrainable:
        if self.worker is None:
            self.worker = TrialTrainable(settings)
        else:
            self.worker.reset_config(settings)
        return self.worker

    @property
    def trials(self) -> list[Trial]:
        """As the store has them."""
        return self.store.trials("s")

    def measured(self) -> dict[tuple[str, int], dict[str, float]]:
        """What must not depend on who was killed when."""
        return {
            (one.trial_id, one.step): {name: value for name, value in one.metrics.items() if name not in VOLATILE}
            for one in self.store.measurements("s")
        }


@pytest.fixture(autouse=True)
def _quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers without a cluster; a driver that waits for nobody."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.05)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(name="undisturbed", scope="module")
def _undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Population:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("population")
        patch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(folder / "ray"))
        population = Population(folder / "sweep")
        population.drive()
    return population


def test_trials_wait_for_each_other_at_every_look(undisturbed: Population) -> None:
    """After two and four epochs, nobody trains the next one before all have come so far."""
    for look in (2, 4):
        before = [place for place, (_, step) in enumerate(undisturbed.order) if step < look]
        after = [place for place, (_, step) in enumerate(undisturbed.order) if step > look]
        assert max(before) < min(after)
    steps = sorted(undisturbed.measured())
    assert steps == [(f"s-{number:04}", step) for number in range(4) for step in range(1, 6)]


def test_the_worst_goes_on_from_the_best(undisturbed: Population) -> None:
    """At each look one trial of four copies the best; its settings are near the other's and its value is its own."""
    losses = {key: metrics["validation/loss"] for key, metrics in undisturbed.measured().items()}
    looks = sorted((one.step, one) for trial in undisturbed.trials for one in trial.exploits)
    assert [step for step, _ in looks] == [2, 4]
    for step, exploit in looks:
        then = {trial.id: losses[trial.id, step] for trial in undisturbed.trials}
        assert exploit.trial_id == max(then, key=then.__getitem__)
        assert exploit.source == min(then, key=then.__getitem__)
    for trial in undisturbed.trials:
        since = max([exploit.step for exploit in trial.exploits], default=0)
        assert trial.state is TrialState.COMPLETED
        assert trial.values == (min(losses[trial.id, step] for step in range(since + 1, 6)),)
        for exploit in trial.exploits:
            assert trial.point == exploit.point != exploit.before
    (champion,) = undisturbed.store.models()
    best = min(undisturbed.trials, key=lambda trial: trial.values or (9.0,))
    assert (champion.trial_id, champion.value) == (best.id, best.values[0] if best.values else None)


def test_a_checkpoint_says_which_settings_each_step_was_trained_with(undisturbed: Population) -> None:
    """Those of the trials that the weights were copied from, step by step, then its own; so does the saved model."""
    copied = next(trial for trial in undisturbed.trials if trial.exploits)
    (*_, exploit) = copied.exploits
    path = Path(copied.checkpoint or "")
    state = checkpoint.read(path)
    assert state.trial == undisturbed.spec.trial(copied.point).to_dict()
    assert state.lineage[-1]["source"] == exploit.source
    assert state.lineage[-1]["step"] == exploit.step
    assert f'"source": "{exploit.source}"' in (path / "model" / DESCRIPTION).read_text()
    for step, metrics in state.history.items():
        theirs = next((one["trial"] for one in state.lineage if step <= one["step"]), state.trial)
        assert metrics["learning_rate"] == pytest.approx(theirs["train"]["learning_rate"])
    own = [step for step in state.history if step > exploit.step]
    measured = undisturbed.measured()
    for step in own:
        assert measured[copied.id, step]["validation/loss"] == state.history[step]["validation/loss"]


@pytest.mark.parametrize("writes", [7, 12, 13, 23])
def test_a_driver_that_is_killed_loses_nothing(undisturbed: Population, tmp_path: Path, writes: int) -> None:
    """Whatever the store had last, also in the middle of a look, the next driver comes to the very same population."""
    population = Population(tmp_path / "sweep")
    population.drive(writes=writes)
    assert len(population.store.measurements("s")) < 20
    if writes == 12:  # the look has changed the disk, and the store has not heard of it
        lines = [checkpoint.read(path).lineage for path in tmp_path.glob("sweep/trials/*/checkpoint-000002")]
        assert sum(map(len, lines)) == 1
        assert not any(trial.exploits for trial in population.trials)
    population.drive()
    assert population.measured() == undisturbed.measured()
    for one, other in zip(population.trials, undisturbed.trials, strict=True):
        assert (one.point, one.values, one.state) == (other.point, other.values, other.state)
        assert [(e.step, e.source, e.point) for e in one.exploits] == [
            (e.step, e.source, e.point) for e in other.exploits
        ]
    events = [event.kind for event in population.store.events("s")]
    assert events.count("exploit") == 2


def test_a_sweep_that_is_paused_at_a_look_goes_on_from_there(undisturbed: Population, tmp_path: Path) -> None:
    """Two trials wait and one that runs ends at its report; resumed, they come to what they would have come to."""
    population = Population(tmp_path / "sweep")
    population.drive(draining_after=5)
    paused = population.trials
    assert [(trial.state, trial.step) for trial in paused] == [(TrialState.PAUSED, 2)] * 2 + [(TrialState.PAUSED, 1)]
    population.drive()
    assert population.measured() == undisturbed.measured()


class Refusing:
    """A store that refuses the exploits that it is told."""

    def __init__(self, store: MemoryStore) -> None:
        self._store, self.refused = store, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def add_exploits(self, *_args: Any, **_kwargs: Any) -> None:
        self.refused += 1
        raise ValueError("no such column")


def test_a_look_that_fails_ends_the_sweep_and_loses_nothing(
    undisturbed: Population, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Checkpoints have been copied by then. The sweep says why it failed; a retry goes on as if it had not."""
    population = Population(tmp_path)
    refusing: Any = Refusing(population.store)
    run = population.drive(store=refusing)
    assert refusing.refused == 1
    assert run is not None
    assert run.failure == "the look at its population failed with ValueError: no such column"
    assert "the population cannot go on" in caplog.text
    assert "no such column" in caplog.text
    assert {(trial.state, trial.step) for trial in population.trials} == {(TrialState.STOPPED, 2)}
    for trial in population.trials:  # what `retry` does
        population.store.move_trial(trial.id, TrialState.PAUSED, at=population.clock.now())
    population.drive()
    assert population.measured() == undisturbed.measured()
    assert sorted(population.order) == sorted(undisturbed.order)


def told(folder: Path) -> Harness:
    """A run whose trials are told by hand; they have no checkpoints."""
    return Harness(folder, **{**SPEC, "objectives": [{"metric": "validation/accuracy", "mode": "max"}]})


def start(run: Run) -> str:
    """The id of the trial that starts."""
    for _ in range(ASKED):
        settings = run.start()
        if not isinstance(settings, str):
            return settings["trial_id"]
    pytest.fail(f"no trial starts: {settings}")


def report(run: Run, trial_id: str, step: int, accuracy: float = 0.5) -> bool:
    """The trial has done a step."""
    metrics = {"validation/accuracy": accuracy}
    return run.report(
        trial_id,
        Report(
            step=step,
            metrics=metrics,
            checkpoint=f"{trial_id}/checkpoint-{step:06}",
            best_step=step,
            best_metrics=metrics,
            finished="max_epochs reached" if step == 5 else None,
            diverged=False,
        ),
    )


def test_nobody_waits_for_a_trial_that_failed(tmp_path: Path) -> None:
    """The others go on; tried again later, it passes the looks that have happened without them."""
    harness = told(tmp_path)
    run = harness.run
    ids = [start(run) for _ in range(4)]
    run.fail(ids[0], "no reason")
    assert [report(run, one, step) for one in ids[1:] for step in (1, 2)] == [False, True] * 3
    for one in ids[1:]:
        assert start(run) == one
        assert [report(run, one, step) for step in (3, 4)] == [False, True]
    for one in ids[1:]:
        assert start(run) == one
        assert report(run, one, 5)
    assert run.start() == "never"
    harness.recorder.close()
    harness.store.move_trial(ids[0], TrialState.PAUSED, at=harness.clock.now())
    run = harness.again()
    assert start(run) == ids[0]
    assert [report(run, ids[0], step) for step in (1, 2, 3, 4, 5)] == [False, False, False, False, True]
    harness.recorder.close()
    assert {trial.state for trial in harness.store.trials("s")} == {TrialState.COMPLETED}


def test_a_trial_is_not_copied_without_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody removed it: the trial that should copy it goes on as it is, and the log says why."""
    harness = told(tmp_path)
    run = harness.run
    ids = [start(run) for _ in range(4)]
    for number, one in enumerate(ids):
        report(run, one, 1)
        report(run, one, 2, accuracy=number / 4)
    assert [start(run) for _ in range(4)] == ids
    harness.recorder.close()
    assert not any(trial.exploits for trial in harness.store.trials("s"))
    assert "trial 0 does not go on from trial 3" in caplog.text


def test_a_trial_copies_no_settings_that_are_illegal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A rule between several settings may hold for its source and not beside it: it goes on as it is."""
    monkeypatch.setattr(generations, "copies", lambda *_, **__: [Copy(0, 3, {RATE: -1.0})])
    harness = told(tmp_path)
    ids = [start(harness.run) for _ in range(4)]
    assert [report(harness.run, one, step) for one in ids for step in (1, 2)] == [False, True] * 4
    assert [start(harness.run) for _ in range(4)] == ids
    assert not any(trial.exploits for trial in harness.trials())
    assert "trial 0 does not go on from trial 3: train.learning_rate: need" in caplog.text
