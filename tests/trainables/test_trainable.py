"""The trial as a Tune actor."""

from __future__ import annotations

import math
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune

from trainables.checkpoint import CorruptCheckpoint
from trainables.data.dataset import DataUnavailable
from trainables.data.digits import Digits
from trainables.reported import VOLATILE
from trainables.saved_model import load_model
from trainables.trainable import TrialTrainable

MakeConfig = Callable[..., dict[str, Any]]


@pytest.fixture(name="make_config")
def _make_config(tmp_path: Path) -> MakeConfig:
    def make(
        trial_id: str = "aaaaaaaa-0000", checkpoint: str | None = None, step: int = 0, **train: Any
    ) -> dict[str, Any]:
        return {
            "trial_id": trial_id,
            "sweep_id": "aaaaaaaa",
            "trial": {
                "family": "narrow_resnet",
                "model": {"channels": [2, 4, 4, 4]},
                "train": {"batch_size": 32, "max_epochs": 3, **train},
                "data": {"name": "digits", "image_size": 16, "train": 96, "validation": 40, "test": 40},
            },
            "checkpoint": checkpoint,
            "step": step,
            "folder": str(tmp_path / "trials" / trial_id),
            "data_root": str(tmp_path / "data"),
            "data_reserve": 0,
            "weights_root": str(tmp_path / "weights"),
            "referenced_weights": None,
            "cpus": 1,
        }

    return make


@pytest.fixture(name="start")
def _start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], TrialTrainable]]:
    """Makes the actor's object in this process: no cluster."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    threads = torch.get_num_threads()
    started: list[TrialTrainable] = []

    def start(config: dict[str, Any]) -> TrialTrainable:
        started.append(TrialTrainable(config))
        return started[-1]

    yield start
    for trainable in started:
        trainable.stop()
    torch.set_num_threads(threads)


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """What two runs of the same epoch must agree on."""
    kept = {key: value for key, value in report.items() if key != "checkpoint"}
    for part in ("metrics", "best_metrics"):
        kept[part] = {k: v for k, v in kept[part].items() if k not in VOLATILE}
    return kept


def test_a_step_is_an_epoch_and_its_checkpoint(start: Callable[..., TrialTrainable], make_config: MakeConfig) -> None:
    """Each step reports the epoch's metrics and a checkpoint that is there; the last one says why it is."""
    trainable = start(make_config())
    results = [trainable.train() for _ in range(3)]
    reports = [result["report"] for result in results]
    assert [report["step"] for report in reports] == [1, 2, 3]
    assert [result["done"] for result in results] == [False, False, True]
    assert [report["finished"] for report in reports] == [None, None, "max_epochs reached"]
    assert not Path(reports[0]["checkpoint"]).exists()
    model = load_model(Path(reports[2]["checkpoint"]) / "model")
    assert model.step == reports[2]["best_step"]
    assert model.metrics == reports[2]["best_metrics"]
    assert torch.get_num_threads() == 1


def test_a_trial_starts_from_the_weights_it_refers_to(
    start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """Where the driver says they are; if they are nowhere, the first step says so."""
    teacher = start(make_config()).train()["report"]
    model = Path(teacher["checkpoint"]) / "model"
    settings = {"optimizer": "sgd", "learning_rate": 1e-30, "initial_weights": "trial:aaaaaaaa-0000"}
    config = make_config(trial_id="bbbbbbbb-0000", **settings)
    report = start({**config, "referenced_weights": str(model)}).train()["report"]
    ours, theirs = (load_model(path).module.state_dict() for path in (Path(report["checkpoint"]) / "model", model))
    assert torch.equal(ours["head.weight"], theirs["head.weight"])
    with pytest.raises(Exception, match="there is no trial:aaaaaaaa-0000 any more"):
        start(make_config(trial_id="bbbbbbbb-0001", **settings)).train()


def test_a_trial_continues_from_its_checkpoint(start: Callable[..., TrialTrainable], make_config: MakeConfig) -> None:
    """Another actor first tells the checkpoint's step again, then trains the very epochs that the first would have."""
    first = start(make_config())
    reports = [first.train()["report"] for _ in range(2)]
    kept = Path(reports[1]["checkpoint"])
    moved = shutil.copytree(kept, kept.parent.parent / "elsewhere")
    last = first.train()["report"]
    second = start(make_config(checkpoint=str(moved), step=2))
    again = second.train()["report"]
    assert again == {**reports[1], "checkpoint": str(moved)}
    assert lasting(second.train()["report"]) == lasting(last)


@pytest.mark.parametrize("named", ["nothing", "lost", "broken"])
def test_the_newest_whole_checkpoint_stands_in(
    named: str, start: Callable[..., TrialTrainable], make_config: MakeConfig, tmp_path: Path
) -> None:
    """Where the named checkpoint is lost or broken, the newest in the trial's folder is continued."""
    first = start(make_config())
    reports = [first.train()["report"] for _ in range(2)]
    if named == "broken":
        (tmp_path / "broken").mkdir()
    second = start(make_config(checkpoint=None if named == "nothing" else str(tmp_path / named), step=2))
    assert second.train()["report"] == reports[1]


@pytest.mark.parametrize("known", [0, 1, 2, 3])
def test_steps_that_the_store_does_not_have_are_told_in_order(
    known: int, start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """A report each, as measured then and with the newest checkpoint; the last one says that the trial is done."""
    first = start(make_config(optimizer="sgd"))
    told = [first.train()["report"] for _ in range(3)]
    second = start(make_config(step=known, optimizer="sgd"))
    again = [second.train() for _ in range(min(known, 2), 3)]
    kept = {name: told[2][name] for name in ("checkpoint", "best_step", "best_metrics")}
    assert [result["report"] for result in again] == [{**report, **kept} for report in told[min(known, 2) :]]
    assert [result["done"] for result in again] == [False] * (len(again) - 1) + [True]


@pytest.mark.parametrize("named", [True, False])
def test_another_trials_checkpoint_is_not_continued(
    named: bool, start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """An id that is given again, to a point of the same shapes, starts afresh and leaves nothing of the old one."""
    other = start(make_config(seed=5))
    path = [other.train()["report"]["checkpoint"] for _ in range(2)][-1]
    trial = start(make_config(checkpoint=path if named else None, seed=3))
    fresh = start(make_config("aaaaaaaa-0001", seed=3))
    report, expected = trial.train()["report"], fresh.train()["report"]
    assert lasting(report) == lasting(expected)
    assert not Path(path).exists()
    mine, theirs = (load_model(Path(each["checkpoint"]) / "model") for each in (report, expected))
    assert mine.trial["train"]["seed"] == 3
    weights = theirs.module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in mine.module.state_dict().items())


def test_the_own_checkpoint_is_found_behind_another_trials(
    start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """A writer that died before it removed the other trial's, newer checkpoint has not lost its own."""
    other = start(make_config("aaaaaaaa-0001", seed=5))
    left = Path([other.train()["report"]["checkpoint"] for _ in range(2)][-1])
    report = start(make_config(seed=3)).train()["report"]
    shutil.copytree(left, Path(report["checkpoint"]).parent / left.name)
    assert start(make_config(seed=3, step=1)).train()["report"] == report


def test_a_finished_trial_is_told_again_and_not_trained(
    start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """A driver that died before it heard of the last step hears of it, once more with `done`."""
    first = start(make_config(max_epochs=1))
    result = first.train()
    again = start(make_config(max_epochs=1)).train()
    assert again["done"]
    assert again["report"] == result["report"]


def test_a_warm_actor_takes_another_trial(start: Callable[..., TrialTrainable], make_config: MakeConfig) -> None:
    """After `reset_config` it trains exactly as a fresh actor would, on data that are loaded only once."""
    warm = start(make_config("aaaaaaaa-0000"))
    warm.train()
    dataset = warm._training.dataset
    assert warm.reset(make_config("aaaaaaaa-0001", seed=3))
    assert warm._training.dataset is dataset
    fresh = start(make_config("aaaaaaaa-0002", seed=3))
    assert lasting(warm.train()["report"]) == lasting(fresh.train()["report"])


def test_a_diverged_trial_is_done(start: Callable[..., TrialTrainable], make_config: MakeConfig) -> None:
    """Not-a-number ends the trial with its reason, and without an exception."""
    result = start(make_config(optimizer="sgd", learning_rate=1e30)).train()
    report = result["report"]
    assert result["done"]
    assert report["diverged"]
    assert report["finished"] == "diverged: train/loss is nan at step 1"
    assert math.isnan(report["metrics"]["train/loss"])
    assert report["best_step"] is None


def test_tune_can_save_and_load_it(
    start: Callable[..., TrialTrainable], make_config: MakeConfig, tmp_path: Path
) -> None:
    """`save_checkpoint` and `load_checkpoint` carry a trial to another actor exactly."""
    first = start(make_config("aaaaaaaa-0000"))
    first.train()
    (tmp_path / "tune").mkdir()
    first.save_checkpoint(str(tmp_path / "tune"))
    second = start(make_config("aaaaaaaa-0001"))
    second.load_checkpoint(str(tmp_path / "tune"))
    assert lasting(second.train()["report"]) == lasting(first.train()["report"])
    with pytest.raises(CorruptCheckpoint, match="found none"):
        second.load_checkpoint(str(tmp_path))


@pytest.mark.slow
def test_tune_runs_trials_on_one_warm_actor(make_config: MakeConfig, tmp_path: Path, ray_temp: str) -> None:
    """A real Tuner runs three trials, one of them diverging, in one process; every report arrives as it was made."""
    Digits(image_size=16, train=96, validation=40, test=40).load(tmp_path / "data")
    points = [make_config("aaaaaaaa-0000"), make_config("aaaaaaaa-0001", seed=1)]
    points.append(make_config("aaaaaaaa-0002", optimizer="sgd", learning_rate=1e30))
    root = str(Path(__file__).parents[2])
    ray.init(
        address="local",  # never a cluster that happens to run here
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
        _temp_dir=ray_temp,
    )
    try:
        results = tune.Tuner(
            tune.with_resources(TrialTrainable, {"cpu": 1}),
            param_space=tune.grid_search(points),
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    assert not results.errors
    assert len({result.metrics["pid"] for result in results}) == 1
    reports = {Path(result.metrics["report"]["checkpoint"]).parent.name: result.metrics["report"] for result in results}
    assert [reports[point["trial_id"]]["finished"] for point in points] == [
        "max_epochs reached",
        "max_epochs reached",
        "diverged: train/loss is nan at step 1",
    ]
    assert math.isnan(reports["aaaaaaaa-0002"]["metrics"]["train/loss"])
    assert load_model(Path(reports["aaaaaaaa-0001"]["checkpoint"]) / "model").trial["train"]["seed"] == 1


def limit_files(size: int) -> None:
    """Make the kernel refuse larger files to this process, also pytest's own output where that is a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def no_room() -> Iterator[None]:
    """A full disk, until the block ends or `limit_files` makes room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    limit_files(100)
    try:
        yield
    finally:
        limit_files(before)


def test_a_full_disk_costs_a_trial_its_newest_steps_at_most(
    start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """It goes on, and reports the checkpoint and the kept weights that are on disk; with room, it writes again."""
    trainable = start(make_config(max_epochs=4))
    first = trainable.train()["report"]
    with no_room():
        with pytest.raises(OSError, match="File too large"):
            Path(first["checkpoint"]).with_name("probe").write_bytes(bytes(1000))
        second = trainable.train()["report"]
    assert second["step"] == 2
    assert {key: second[key] for key in ("checkpoint", "best_step", "best_metrics")} == {
        key: first[key] for key in ("checkpoint", "best_step", "best_metrics")
    }
    assert load_model(Path(second["checkpoint"]) / "model").step == 1
    again = start(make_config(max_epochs=4, step=2))
    assert again.train()["report"]["step"] == 1
    third = trainable.train()["report"]
    assert Path(third["checkpoint"]).name == "checkpoint-000003"


def test_the_end_of_a_trial_waits_for_room(
    start: Callable[..., TrialTrainable], make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint holds the model that is served. Meanwhile it gives signs of life: it does not hang."""
    waited: list[float] = []

    def make_room(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            limit_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    monkeypatch.setattr("trainables.trainable.time.sleep", make_room)
    trainable = start(make_config(max_epochs=1))
    with no_room():
        *signs, report = (trainable.train()["report"] for _ in range(3))
    assert signs == [None, None]
    assert len(waited) == 2
    assert report["finished"] == "max_epochs reached"
    assert load_model(Path(report["checkpoint"]) / "model").step == 1


def test_a_trial_may_have_no_checkpoint_yet(start: Callable[..., TrialTrainable], make_config: MakeConfig) -> None:
    """The disk was full from the beginning: there is nothing to continue from, and no value."""
    trainable = start(make_config())
    with no_room():
        report = trainable.train()["report"]
    assert (report["checkpoint"], report["best_step"], report["best_metrics"]) == (None, None, {})


def test_a_trial_that_makes_its_own_data_leaves_the_reserve(
    start: Callable[..., TrialTrainable], make_config: MakeConfig
) -> None:
    """As where settings of the data are searched: it fails and says why, before it trains."""
    with pytest.raises(DataUnavailable, match=r"no room in .* stay free"):
        start(make_config() | {"data_reserve": 10**18})
