"""A running sweep without Ray: trials are started, reported and ended by hand."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import torch

from service.domain import SweepState, TrialState
from service.driver.recorder import Recorder
from service.driver.run import DEATHS
from service.errors import Conflict
from service.spec import SweepSpec
from tests.service.driver.run_harness import Harness
from trainables.trainable import TrialTrainable


def test_a_trial_is_in_the_store_from_its_start(harness: Harness) -> None:
    """A started trial has its number and point in the store, and its worker is told where everything is."""
    settings = harness.start()
    (trial,) = harness.trials()
    assert (trial.id, trial.number, trial.state) == ("s-0000", 0, TrialState.RUNNING)
    assert settings["trial"] == harness.spec.trial(trial.point).to_dict()
    assert settings["folder"] == str(harness.folder / "s-0000")
    assert settings["checkpoint"] is None


def test_trials_are_told_where_weights_are_that_they_refer_to(tmp_path: Path) -> None:
    """A worker knows no store: it gets the place; None where the trial starts from a file or from nothing."""
    for name, place in (("trial:t-0001", "there"), ("file.safetensors", None), (None, None)):
        assert Harness(tmp_path, fixed={"train.initial_weights": name}).start()["referenced_weights"] == place


def test_value_is_that_of_the_kept_weights(harness: Harness) -> None:
    """A trial that got worse at the end counts with its best epoch, whose weights were kept."""
    trial_id = harness.start()["trial_id"]
    assert not harness.report(trial_id, 1, 0.9)
    last = {"best_step": 1, "best_metrics": {"validation/accuracy": 0.9}, "finished": "max_epochs reached"}
    assert harness.report(trial_id, 2, 0.7, **last)
    (trial,) = harness.trials()
    assert (trial.state, trial.values, trial.step) == (TrialState.COMPLETED, (0.9,), 2)
    assert [m.metrics["validation/accuracy"] for m in harness.store.measurements("s")] == [0.9, 0.7]


def test_each_better_trial_becomes_the_champion(harness: Harness) -> None:
    """A completed trial is offered as the champion; a worse one later is not taken."""
    for accuracy in (0.5, 0.8, 0.6):
        harness.report(harness.start()["trial_id"], 1, accuracy, finished="max_epochs reached")
    harness.trials()
    champions = [version.trial_id for version in harness.store.model_versions("little")]
    assert champions == ["s-0001", "s-0000"]


def test_a_diverged_trial_has_failed_with_its_reason(harness: Harness) -> None:
    """NaN in the loss: the trial fails and says where; its NaN is kept as measured."""
    trial_id = harness.start()["trial_id"]
    reason = "diverged: train/loss is nan at step 3"
    assert harness.report(trial_id, 3, math.nan, best_step=None, best_metrics={}, finished=reason, diverged=True)
    (trial,) = harness.trials()
    assert (trial.state, trial.reason, trial.values) == (TrialState.FAILED, reason, None)
    assert math.isnan(harness.store.measurements("s")[0].metrics["validation/accuracy"])


@pytest.mark.parametrize(
    ("best", "reason"),
    [
        ({"validation/accuracy": math.nan}, "validation/accuracy is nan at step 1"),
        ({"other": 1.0}, "it did not measure validation/accuracy; it measured: other"),
    ],
)
def test_a_trial_without_a_value_has_failed(harness: Harness, best: dict[str, float], reason: str) -> None:
    """Ending without a finite objective is a failure that says what is the matter."""
    harness.report(harness.start()["trial_id"], 1, 0.5, best_metrics=best, finished="max_epochs reached")
    (trial,) = harness.trials()
    assert (trial.state, trial.reason) == (TrialState.FAILED, reason)


def test_the_pruner_ends_a_trial(tmp_path: Path) -> None:
    """ASHA ends the second trial of two at its first rung, with the value that it had reached."""
    harness = Harness(tmp_path, stop={"pruner": "asha"})
    good, bad = harness.start()["trial_id"], harness.start()["trial_id"]
    assert not harness.report(good, 1, 0.9)
    assert harness.report(bad, 1, 0.1)
    trial = harness.trials()[1]
    assert (trial.state, trial.values, trial.reason) == (TrialState.PRUNED, (0.1,), "behind other trials at step 1")


def test_an_error_fails_the_trial_and_the_sweep_goes_on(harness: Harness) -> None:
    """One trial's exception is that trial's end only."""
    harness.run.fail(harness.start()["trial_id"], "ValueError: no")
    assert harness.run.failure == "every trial failed, the first one with: ValueError: no"
    harness.report(harness.start()["trial_id"], 1, 0.5, finished="max_epochs reached")
    assert harness.run.failure is None
    assert [trial.state for trial in harness.trials()] == [TrialState.FAILED, TrialState.COMPLETED]


def test_a_lost_worker_goes_on_from_its_checkpoint(harness: Harness) -> None:
    """The trial is started again with its point and newest checkpoint, before any new one."""
    first = harness.start()
    harness.report(first["trial_id"], 2, 0.5)
    harness.run.lose(first["trial_id"], "killed")
    again = harness.start()
    assert again == {**first, "checkpoint": str(harness.folder / "s-0000" / "checkpoint-000002"), "step": 2}
    assert len(harness.trials()) == 1


def test_a_trial_that_kills_its_workers_has_failed(harness: Harness) -> None:
    """A trial whose worker dies again and again is given up, with the reason."""
    for _ in range(DEATHS):
        harness.run.lose(harness.start()["trial_id"], "killed")
    (trial,) = harness.trials()
    assert (trial.state, trial.reason) == (
        TrialState.FAILED,
        f"its worker died {DEATHS} times, the last time with: killed",
    )


def test_no_trial_fails_by_deaths_while_its_sweep_ends(harness: Harness) -> None:
    """Its driver ends the workers that it needs no more."""
    for _ in range(DEATHS - 1):
        harness.run.lose(harness.start()["trial_id"], "killed")
    trial_id = harness.start()["trial_id"]
    harness.run.drain(pause=True)
    harness.run.lose(trial_id, "its sweep ends")
    harness.run.close("the sweep ended")
    assert [trial.state for trial in harness.trials()] == [TrialState.PAUSED]


def test_a_trial_that_gets_on_between_deaths_goes_on(harness: Harness) -> None:
    """Machines that come and go end no long trial; the steps that an older checkpoint repeats are no progress."""
    for step in range(1, 2 * DEATHS):
        trial_id = harness.start()["trial_id"]
        harness.report(trial_id, step, 0.5)
        harness.run.lose(trial_id, "killed")
    for _ in range(DEATHS - 1):
        harness.start()
        harness.report(trial_id, step - 1, 0.5)
        harness.report(trial_id, step, 0.5)
        harness.run.lose(trial_id, "killed")
    (trial,) = harness.trials()
    assert (trial.state, trial.step) == (TrialState.FAILED, step)


def test_a_trial_that_runs_out_of_memory_is_tried_once_more_with_twice_the_share(tmp_path: Path) -> None:
    """It goes on from its checkpoint; when that is not enough, it has failed, and the reason says with how much."""
    harness = Harness(tmp_path, resources={"cpus": 1, "gpus": 0.25})
    first = harness.start()
    harness.report(first["trial_id"], 2, 0.5)
    harness.run.exhaust(first["trial_id"], "CUDA out of memory")
    again = harness.start()
    assert (again["trial_id"], again["step"]) == (first["trial_id"], 2)
    assert (first["cpus"], first["gpus"], again["cpus"], again["gpus"]) == (1, 0.25, 2, 0.5)
    harness.run.exhaust(first["trial_id"], "CUDA out of memory")
    other = harness.start()
    assert (other["cpus"], other["gpus"]) == (1, 0.25)
    failed = harness.trials()[0]
    assert failed.state is TrialState.FAILED
    assert failed.reason == "it ran out of memory again, with 2 cpus and 0.5 gpus: CUDA out of memory"


@pytest.mark.parametrize(("gpus", "enlarged"), [(0, 0), (0.6, 1), (1, 2), (2, 4)])
def test_a_larger_share_of_gpus_is_one_that_can_be_had(tmp_path: Path, gpus: float, enlarged: float) -> None:
    """Parts of one GPU, or several whole ones."""
    harness = Harness(tmp_path, resources={"cpus": 1, "gpus": gpus})
    harness.run.exhaust(harness.start()["trial_id"], "no memory")
    assert harness.start()["gpus"] == enlarged


def test_there_may_be_more_until_the_last_trial_has_ended(harness: Harness) -> None:
    """With the budget spent, a running trial may still come back; when it ends, so does the sweep."""
    started = [harness.start()["trial_id"] for _ in range(4)]
    assert harness.run.start() == "later"
    for trial_id in started:
        harness.report(trial_id, 1, 0.5, finished="max_epochs reached")
    assert harness.run.start() == "never"


def test_closing_stops_what_runs_and_keeps_what_has_ended(harness: Harness) -> None:
    """Ended trials stay so, the others are stopped with their checkpoints, and late reports change nothing."""
    done, running = harness.start()["trial_id"], harness.start()["trial_id"]
    harness.report(done, 1, 0.5, finished="max_epochs reached")
    harness.report(running, 1, 0.4)
    harness.run.close("stopped on request")
    assert harness.report(running, 2, 0.6)
    assert harness.run.start() == "never"
    first, second = harness.trials()
    assert first.state is TrialState.COMPLETED
    assert (second.state, second.reason, second.step) == (TrialState.STOPPED, "stopped on request", 1)
    assert second.checkpoint == str(harness.folder / "s-0001" / "checkpoint-000001")


def test_the_next_driver_takes_over_where_the_last_one_died(harness: Harness) -> None:
    """Finished trials count, running ones go on first, and only the rest of the budget is new."""
    finished, running = harness.start()["trial_id"], harness.start()["trial_id"]
    harness.report(finished, 1, 0.5, finished="max_epochs reached")
    harness.report(running, 1, 0.6)
    harness.recorder.close()
    harness.again()
    resumed = harness.start()
    assert (resumed["trial_id"], resumed["checkpoint"]) == (
        running,
        str(harness.folder / "s-0001" / "checkpoint-000001"),
    )
    assert not harness.report(running, 1, 0.6)  # its worker reports the checkpoint's step again
    harness.report(running, 2, 0.7, finished="max_epochs reached")
    new = [harness.start()["trial_id"], harness.start()["trial_id"]]
    assert new == ["s-0002", "s-0003"]
    assert harness.run.start() == "later"
    harness.trials()
    steps = [(m.trial_id, m.step) for m in harness.store.measurements("s")]
    assert steps == [(finished, 1), (running, 1), (running, 2)]


def test_steps_that_never_reached_the_store_arrive_with_the_next_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store did not answer while a driver trained and died: the next one's store gets each step, once."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    harness = Harness(
        tmp_path,
        data={"name": "digits", "image_size": 16, "train": 96, "validation": 40, "test": 40},
        fixed={"model.channels": [2, 4, 4, 4], "train.max_epochs": 4},
        stop={"pruner": "asha"},
    )
    first, rival = harness.start(), harness.start()
    harness.recorder.close()  # the store knows both trials, and from here on nothing
    harness.run._recorder = silent = Recorder(harness.store, harness.clock)
    answers = threading.Event()
    silent.put(lambda store: answers.wait())
    worker = TrialTrainable(dict(first))
    told = [worker.train()["report"] for _ in range(3)]
    assert not any(harness.run.report(first["trial_id"], report) for report in told)
    assert harness.store.measurements("s") == []

    harness.again()
    again = harness.start()
    assert again == first
    worker = TrialTrainable(dict(again))
    results = [worker.train()["report"] for _ in range(4)]
    assert not any(harness.run.report(first["trial_id"], report) for report in results[:3])
    assert harness.start() == rival
    assert harness.report(rival["trial_id"], 1, 0.0)  # behind the first step of the trial that was told again
    assert harness.run.report(first["trial_id"], results[3])
    assert [trial.state for trial in harness.trials()] == [TrialState.COMPLETED, TrialState.PRUNED]
    measured = harness.store.measurements("s", trial_id=first["trial_id"])
    assert [m.step for m in measured] == [1, 2, 3, 4]
    assert [m.metrics for m in measured[:3]] == [report["metrics"] for report in told]
    answers.set()
    silent.close()
    assert harness.store.measurements("s", trial_id=first["trial_id"]) == measured


def test_a_paused_run_leaves_its_trials_to_go_on(harness: Harness) -> None:
    """Each ends at its next report, one that never reports at the close; the next driver goes on with them."""
    first, second = harness.start()["trial_id"], harness.start()["trial_id"]
    harness.run.drain(pause=True)
    assert harness.run.start() == "never"
    assert harness.report(first, 1, 0.5)
    harness.run.close("the sweep ended")
    paused = harness.trials()
    assert [trial.state for trial in paused] == [TrialState.PAUSED] * 2
    assert (paused[0].step, paused[0].checkpoint) == (1, str(harness.folder / first / "checkpoint-000001"))
    harness.again()
    assert [harness.start()["trial_id"] for _ in range(2)] == [first, second]
    assert harness.report(first, 2, 0.6, finished="max_epochs reached")
    assert [trial.state for trial in harness.trials()] == [TrialState.COMPLETED, TrialState.RUNNING]


def test_a_stopped_run_keeps_what_its_trials_reached(harness: Harness) -> None:
    """Each is stopped at its next report, with the value of its best epoch; one that ends there by itself completes."""
    first, second = harness.start()["trial_id"], harness.start()["trial_id"]
    harness.report(first, 1, 0.5)
    harness.run.drain(pause=False)
    assert harness.report(first, 2, 0.7)
    assert harness.report(second, 1, 0.6, finished="max_epochs reached")
    harness.run.close("the sweep ended")
    assert [(trial.state, trial.values) for trial in harness.trials()] == [
        (TrialState.STOPPED, (0.7,)),
        (TrialState.COMPLETED, (0.6,)),
    ]


def test_a_run_that_is_cancelled_while_it_pauses_stops_its_trials(harness: Harness) -> None:
    """The last word counts, also for a trial that is paused already; what waits goes on in no other."""
    first = harness.start()["trial_id"]
    harness.start()
    harness.run.drain(pause=True)
    assert harness.report(first, 1, 0.5)
    harness.run.stop()
    assert harness.run.start() == "never"
    harness.run.close("the sweep ended: cancelled on request")
    assert [trial.state for trial in harness.trials()] == [TrialState.STOPPED] * 2


def test_an_extended_run_goes_on(harness: Harness) -> None:
    """More trials, without any being ended; a failed one that is tried again keeps its number."""
    for _ in range(3):
        harness.fail_one()
    last = harness.start()["trial_id"]
    assert harness.run.start() == "later"
    seen = harness.store.sweep("s")
    spec = {**seen.spec, "search": {**seen.spec["search"], "trials": 6}}
    harness.run.extend(harness.store.change_spec("s", spec, seen=seen, at=harness.clock.now()))
    harness.run.fail(last, "no reason")
    assert [harness.start()["trial_id"] for _ in range(2)] == ["s-0004", "s-0005"]
    assert harness.run.start() == "later"
    harness.trials()
    harness.store.move_trial("s-0001", TrialState.PAUSED, at=harness.clock.now())
    harness.spec = SweepSpec.from_dict(spec)
    harness.again()
    assert [harness.start()["trial_id"] for _ in range(3)] == ["s-0001", "s-0004", "s-0005"]


def test_an_extension_after_the_last_trial_is_left_to_the_next_run(harness: Harness) -> None:
    """Nobody asks this one for trials any more; it does not pass for one that has run the new spec to its end."""
    for _ in range(4):
        harness.fail_one()
    assert harness.run.start() == "never"
    seen = harness.store.sweep("s")
    spec = {**seen.spec, "search": {**seen.spec["search"], "trials": 6}}
    harness.run.extend(harness.store.change_spec("s", spec, seen=seen, at=harness.clock.now()))
    assert harness.run.sweep.revision == seen.revision
    with pytest.raises(Conflict):
        harness.store.move_sweep("s", SweepState.COMPLETED, at=harness.clock.now(), seen=harness.run.sweep)
