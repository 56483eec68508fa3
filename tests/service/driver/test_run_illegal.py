"""Points that the search asks for and that are no legal trials: each ends alone, and the sweep goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState

from service.domain import TrialState
from service.driver import run as driver
from tests.service.driver.run_harness import Harness

KERNELS: dict[str, Any] = {
    "family": "contour_rnn",
    "data": {"name": "pathfinder"},
    "fixed": {},
    "space": {"model.kernel": {"kind": "int", "low": 3, "high": 15}},  # even ones are illegal, and neither end is
}
WHY = "its point is no legal trial: model.kernel: need an odd number, got 4"


def make(folder: Path, *kernels: int, pruner: str = "none", **search: Any) -> Harness:
    """A sweep that tries these first."""
    enqueue = [{"model.kernel": kernel} for kernel in kernels]
    return Harness(folder, **KERNELS, search={"trials": 20, "enqueue": enqueue, **search}, stop={"pruner": pruner})


def test_an_illegal_point_fails_alone(tmp_path: Path) -> None:
    """It has failed with the reason, the search is told so, and the next point begins at once; so for a next driver."""
    harness = make(tmp_path, 4, 5)
    assert harness.start()["trial_id"] == "s-0001"
    assert [(trial.state, trial.reason) for trial in harness.trials()] == [
        (TrialState.FAILED, WHY),
        (TrialState.RUNNING, ""),
    ]
    assert harness.run._repeats._search._study.trials[0].state is OptunaState.FAIL
    assert harness.again().failure is not None
    assert harness.start()["trial_id"] == "s-0001"
    harness.report("s-0001", 1, 0.5, finished="max_epochs reached")
    assert harness.run.failure is None


def test_a_sweep_goes_on_over_all_its_illegal_points(tmp_path: Path) -> None:
    """Whatever the sampler chooses: every legal point is run, every other one has failed."""
    harness = make(tmp_path)
    while not isinstance(settings := harness.run.start(), str):
        harness.report(settings["trial_id"], 1, 0.5, finished="max_epochs reached")
    assert settings == "never"
    trials = harness.trials()
    assert len(trials) == 20
    odd = [trial.point["model.kernel"] % 2 == 1 for trial in trials]
    assert [trial.state is TrialState.COMPLETED for trial in trials] == odd
    assert 0 < sum(odd) < 20


@pytest.mark.parametrize("pruner", ["none", "asha"])
def test_every_repeat_of_an_illegal_point_fails(tmp_path: Path, pruner: str) -> None:
    """The search hears of one point."""
    harness = make(tmp_path, 4, 5, repeats=3, pruner=pruner)
    assert harness.start()["trial_id"] == "s-0003"
    assert [trial.state for trial in harness.trials()] == [TrialState.FAILED] * 3 + [TrialState.RUNNING]
    assert harness.run._repeats._search._study.trials[0].state is OptunaState.FAIL


def test_illegal_points_that_are_tried_again_hold_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many: they fail again, and the sweep goes on with new ones."""
    monkeypatch.setattr(driver, "ILLEGAL", 3)
    harness = make(tmp_path, 4, 6, 5, 8, 10, 7, 9)
    for trial_id in ("s-0002", "s-0005"):
        assert harness.start()["trial_id"] == trial_id
        harness.report(trial_id, 1, 0.5, finished="max_epochs reached")
    harness.trials()
    for number in (0, 1, 3, 4):  # what `retry` does
        harness.store.move_trial(f"s-{number:04}", TrialState.PAUSED, at=harness.clock.now())
    harness.again()
    assert harness.start()["trial_id"] == "s-0006"
    assert [trial.number for trial in harness.trials() if trial.state is TrialState.FAILED] == [0, 1, 3, 4]


def test_a_sweep_with_hardly_a_legal_point_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not try for ever, and says why; what runs may end."""
    monkeypatch.setattr(driver, "ILLEGAL", 3)
    harness = make(tmp_path, 3, 4, 6, 8, 5)
    running = harness.start()["trial_id"]
    assert [harness.run.start() for _ in range(2)] == ["never"] * 2
    harness.report(running, 1, 0.5, finished="max_epochs reached")
    reason = "3 points in a row are no legal trials, the last one: model.kernel: need an odd number, got 8"
    assert harness.run.failure == reason
    assert [trial.state for trial in harness.trials()] == [TrialState.COMPLETED] + [TrialState.FAILED] * 3
