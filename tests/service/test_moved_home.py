"""A home that is moved, or restored at another place: models, checkpoints and sweeps are found there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import text

from service import tracking, verbs
from service.adapters.manual_clock import ManualClock
from service.adapters.memory_tracker import MemoryTracker
from service.adapters.sql_store import SqlStore
from service.domain import Exploit, Measurement, ModelVersion, Sweep, SweepState, TrialState
from service.driver.recorder import Recorder
from service.driver.run import Run
from service.inference.predictor import Predictors
from service.settings import Settings
from service.spec import SweepSpec
from tests.contracts.store_samples import NOW, add_sweep, add_trial, measure
from trainables.trainable import TrialTrainable

SPEC: Mapping[str, Any] = {
    "name": "moved",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 8, "train": 64, "validation": 60, "test": 32},
    "fixed": {"model.channels": [2, 4, 4, 4], "train.batch_size": 16, "train.max_epochs": 3},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    "search": {"trials": 2},
    "stop": {"pruner": "none"},
    "resources": {"max_concurrent": 1},
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Workers without a cluster."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def opened(settings: Settings) -> SqlStore:
    """The store of a home."""
    store = SqlStore(settings.database_url, sweeps_root=settings.sweeps_root)
    store.migrate()
    return store


def drive(settings: Settings, store: SqlStore, clock: ManualClock, *, pause_after: int | None = None) -> list[str]:
    """A driver to the end of the sweep, or until so many reports have come; its reports, `trial:step`."""
    recorder, spec, reported = Recorder(store, clock), SweepSpec.from_dict(SPEC), list[str]()
    run = Run(
        store.sweep("s"),
        spec,
        trials=store.trials("s"),
        measurements=store.measurements("s"),
        folder=settings.trials("s"),
        data_root=settings.data_root,
        weights_root=settings.weights_root,
        referenced_weights={},
        recorder=recorder,
        clock=clock,
        disk=settings.disk,
    )
    while (started := run.start()) != "never":
        assert not isinstance(started, str)
        worker = TrialTrainable(dict(started))
        over = False
        while not over:
            report = worker.step()["report"]
            reported.append(f"{started['trial_id']}:{report['step']}")
            if len(reported) == pause_after:
                run.drain(pause=True)
            over = run.report(started["trial_id"], report)
    run.close("the sweep ended")
    recorder.close()
    return reported


async def champion(store: SqlStore) -> ModelVersion:
    """The model that is served, loaded."""
    predictors = Predictors(store)
    try:
        return (await predictors.model("moved")).version
    finally:
        predictors.close()


def test_a_moved_home_serves_resumes_and_deletes(tmp_path: Path) -> None:
    """Its champion answers, a paused trial goes on after its last epoch, and a deleted sweep leaves nothing."""
    clock, before = ManualClock(), Settings(home=tmp_path / "before", min_free_disk="0")
    before.home.mkdir()
    with closing(opened(before)) as store:
        store.add_sweep(Sweep(id="s", name="moved", spec=SweepSpec.from_dict(SPEC).to_dict(), created_at=clock.now()))
        store.move_sweep("s", SweepState.RUNNING, at=clock.now())
        assert drive(before, store, clock, pause_after=5) == [f"s-0000:{n}" for n in (1, 2, 3)] + [
            f"s-0001:{n}" for n in (1, 2)
        ]
        assert [trial.state for trial in store.trials("s")] == [TrialState.COMPLETED, TrialState.PAUSED]

    after = Settings(home=tmp_path / "after" / "home", min_free_disk="0")
    after.home.parent.mkdir()
    before.home.rename(after.home)
    with closing(opened(after)) as store:
        served = asyncio.run(champion(store))
        assert served.path.startswith(str(after.home))
        assert served.trial_id == "s-0000"
        paused = store.trial("s-0001").checkpoint
        assert paused is not None
        assert Path(paused).is_relative_to(after.home)
        assert Path(paused).is_dir()
        assert drive(after, store, clock) == ["s-0001:2", "s-0001:3"]  # the first one is what its checkpoint has
        assert {trial.state for trial in store.trials("s")} == {TrialState.COMPLETED}
        assert {one.data["path"].startswith(str(after.home)) for one in store.events("s") if one.kind == "model"} == {
            True
        }
        store.move_sweep("s", SweepState.COMPLETED, at=clock.now())
        verbs.delete(store, "s", clock=clock)
        tracking.remove(store, MemoryTracker(), sweeps_root=after.sweeps_root)
        assert store.sweeps() == []
        assert list(after.sweeps_root.iterdir()) == []
    assert not before.home.exists()


def test_the_database_has_no_path_of_the_home(tmp_path: Path) -> None:
    """In no column of any table; a path elsewhere stays as it is given."""
    settings = Settings(home=tmp_path)
    with closing(opened(settings)) as store:
        sweep = add_sweep(store)
        trial, other = add_trial(store, sweep), add_trial(store, sweep, 1)
        checkpoint = str(settings.trials(sweep.id) / trial.id / "checkpoint-000001")
        store.add_measurement(measure(trial), checkpoint=checkpoint)
        store.add_measurement(Measurement(trial_id=other.id, step=1, at=NOW, metrics={}), checkpoint="/elsewhere")
        exploit = Exploit(
            trial_id=trial.id, step=1, source=other.id, before={}, point={}, checkpoint=f"{checkpoint}-copied"
        )
        store.add_exploits(sweep.id, [exploit], at=NOW)
        store.move_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(0.5,))
        store.add_model_version(
            name="digits", sweep_id=sweep.id, trial_id=trial.id, value=0.5, path=f"{checkpoint}/model", at=NOW
        )
        assert store.trial(trial.id).exploits == (exploit,)
        assert store.trial(trial.id).checkpoint == f"{checkpoint}-copied"
        assert store.trial(other.id).checkpoint == "/elsewhere"
        assert store.champion("digits").path == f"{checkpoint}/model"
        assert [one.data["checkpoint"] for one in store.events(sweep.id) if one.kind == "exploit"] == [
            f"{checkpoint}-copied"
        ]
        with store.engine.connect() as connection:
            for table in ("trials", "model_versions", "events", "sweeps"):
                for row in connection.execute(text(f"SELECT * FROM {table}")):  # noqa: S608
                    assert str(tmp_path) not in str(tuple(row)), table
