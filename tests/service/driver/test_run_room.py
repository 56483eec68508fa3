"""A running sweep and the disk: which checkpoints stay, and what waits while there is no room."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from service.domain import Measurement, Trial, TrialState
from service.driver.recorder import Recorder
from tests.service.driver.run_harness import LEARNING_RATE, Harness


def folders(harness: Harness) -> list[str]:
    """The trials' folders that are there, once all is written."""
    harness.recorder.close()
    return sorted(path.name for path in harness.folder.iterdir())


def complete(harness: Harness, accuracy: float, **changes: Any) -> str:
    """A trial that writes a checkpoint and completes at once."""
    trial_id = harness.start()["trial_id"]
    (harness.folder / trial_id / "checkpoint-000001" / "model").mkdir(parents=True)
    harness.report(trial_id, 1, accuracy, **{"finished": "max_epochs reached", **changes})
    return trial_id


def test_checkpoints_go_as_the_sweep_goes(tmp_path: Path) -> None:
    """All but the best and every champion that there was; the trials stay."""
    harness = Harness(tmp_path, search={"trials": 6}, resources={"keep_best": 1})
    for accuracy in (0.5, 0.3, 0.7, 0.6, 0.9):
        complete(harness, accuracy)
    diverged = {"best_step": None, "best_metrics": {}, "finished": "diverged: loss", "diverged": True}
    complete(harness, math.nan, **diverged)
    assert folders(harness) == ["s-0000", "s-0002", "s-0004", "s-0005"]
    assert [version.trial_id for version in harness.store.model_versions("little")] == ["s-0004", "s-0002", "s-0000"]
    weights = [trial.weights for trial in harness.store.trials("s")]
    assert weights == ["kept", "removed", "kept", "removed", "kept", "kept"]


def test_the_next_driver_removes_what_the_last_one_had_no_time_for(tmp_path: Path) -> None:
    """It died after a trial had completed, before it was offered and before any checkpoint was removed."""
    harness = Harness(tmp_path, resources={"keep_best": 1})
    store, at = harness.store, harness.clock.now()
    for number, accuracy in enumerate((0.5, 0.7, 0.6)):
        trial = Trial(id=f"s-{number:04}", sweep_id="s", number=number, point=LEARNING_RATE, created_at=at)
        (tmp_path / trial.id).mkdir()
        store.add_trial(trial)
        store.add_measurement(
            Measurement(trial_id=trial.id, step=1, at=at, metrics={"validation/accuracy": accuracy}),
            checkpoint=str(tmp_path / trial.id / "checkpoint-000001"),
        )
        store.move_trial(trial.id, TrialState.COMPLETED, at=at, values=(accuracy,))
    assert len(list(tmp_path.iterdir())) == 3
    assert store.model_versions("little") == []
    harness.again()
    assert folders(harness) == ["s-0001"]
    assert [version.trial_id for version in harness.store.model_versions("little")] == ["s-0001"]
    harness.again()
    complete(harness, 0.8)
    assert folders(harness) == ["s-0001", "s-0003"], "version 1 of the model stays"


def test_a_late_folder_is_gone_at_the_end_of_the_sweep(tmp_path: Path) -> None:
    """A worker that was taken for dead wrote it after its trial's checkpoint had been removed."""
    harness = Harness(tmp_path, resources={"keep_best": 1})
    first = complete(harness, 0.9)
    late = complete(harness, 0.5)
    assert folders(harness) == [first]
    (tmp_path / late).mkdir()
    harness.recorder = harness.run._recorder = Recorder(harness.store, harness.clock)
    harness.run.close("the sweep ended")
    assert folders(harness) == [first]


def test_trials_wait_while_the_disk_is_short_and_begin_when_it_has_room(harness: Harness) -> None:
    """Those that run go on; one that lost its worker waits too, and is the first to go on. Watchers hear it once."""
    first, second = harness.start()["trial_id"], harness.start()["trial_id"]
    harness.free = 10**9
    assert [harness.run.start() for _ in range(3)] == ["later"] * 3
    assert not harness.report(first, 1, 0.5)
    harness.report(first, 2, 0.5, finished="max_epochs reached")
    harness.run.lose(second, "killed")
    assert [harness.run.start() for _ in range(3)] == ["later"] * 3, "nothing runs, and there is more to do"
    reason = f"no trial begins: 1 GB are free in {harness.folder}, need 10 GB (SWEEPSERVE_MIN_FREE_DISK=10GB)"
    assert harness.waits() == [reason]
    assert len(harness.store.trials("s")) == 2
    harness.free = 10**10
    assert harness.start()["trial_id"] == second
    assert [harness.start()["trial_id"] for _ in range(2)] == ["s-0002", "s-0003"]
    assert harness.waits() == [reason, ""]
    harness.free = 0
    for number in range(1, 4):
        harness.report(f"s-{number:04}", 1, 0.5, finished="max_epochs reached")
    assert harness.run.start() == "never", "all is done: there is nothing to wait for"


def test_a_sweep_that_waits_for_the_disk_can_be_stopped(harness: Harness) -> None:
    """Nothing runs, and nothing will."""
    harness.free = 0
    assert harness.run.start() == "later"
    harness.run.drain(pause=False)
    assert harness.run.start() == "never"


def test_a_driver_takes_back_what_the_last_one_said(harness: Harness) -> None:
    """It died while its trials waited; this one's do not."""
    harness.free = 0
    assert harness.run.start() == "later"
    reason, *_ = harness.waits()
    assert harness.store.sweep("s").reason == reason
    harness.free = 10**11
    harness.again()
    harness.start()
    assert harness.waits() == [reason, ""]
    assert harness.store.sweep("s").reason == ""


def test_waiting_draws_the_points_that_would_have_been_drawn(tmp_path: Path) -> None:
    """The point that waits is the one that is tried."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    undisturbed, harness = Harness(tmp_path / "a"), Harness(tmp_path / "b")
    harness.free = 0
    assert harness.run.start() == "later"
    harness.free = 10**11
    for _ in range(3):
        assert harness.start()["trial"] == undisturbed.start()["trial"]
