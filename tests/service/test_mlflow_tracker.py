"""Sweeps in MLflow: a real tracking store in SQLite, real files, real models loaded back with MLflow."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from service.adapters import mlflow_tracker
from service.adapters.git_commit import commit_of
from service.adapters.mlflow_analyses import log_analysis
from service.adapters.mlflow_connection import HABITS
from service.adapters.mlflow_tracker import MlflowTracker
from service.domain import Exploit, SweepState, TrialState
from service.errors import NotFound, Unavailable
from service.settings import Settings
from tests.service.mlflow_lab import TRACE, Lab, impatient_way, mlflow_server
from trainables.saved_model import load_model


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(name="tracking")
def _tracking(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name that server, in a process whose own environment stays as it is."""
    for variable, value in HABITS.items():
        monkeypatch.setenv(variable.name, str(value))
    return Settings(home=tmp_path, mlflow_url=server)


@pytest.fixture(name="lab")
def _lab(tracking: Settings, request: pytest.FixtureRequest) -> Lab:
    return Lab(tracking, re.sub("[^a-z0-9]", "", request.node.name)[-20:])


@pytest.fixture(name="saved")
def _saved(tmp_path: Path, lab: Lab) -> Path:
    """A saved model with fresh weights."""
    return lab.save(tmp_path / "saved")


def test_an_analysis_is_on_the_page_of_its_trial(lab: Lab, tmp_path: Path) -> None:
    """Its files are among the run's artifacts; a trial that has no run, and a server that is away, are told."""
    trial_id = lab.trial(0)
    lab.show()
    picture = tmp_path / "ablation-middle.png"
    picture.write_bytes(b"a picture")
    page = log_analysis(lab.settings, trial_id, "ablation", [picture])
    _, child = lab.runs()
    assert page.endswith(f"/runs/{child.info.run_id}")
    (shown,) = lab.client.list_artifacts(child.info.run_id, "analyses/ablation")
    assert shown.path == "analyses/ablation/ablation-middle.png"
    with pytest.raises(NotFound, match="has no run of trial nosuch"):
        log_analysis(lab.settings, "nosuch", "ablation", [picture])
    with pytest.raises(Unavailable, match="refused"):
        log_analysis(replace(lab.settings, mlflow_url="http://127.0.0.1:9"), trial_id, "ablation", [picture])


def test_a_sweep_is_a_parent_run_and_its_trials_are_its_children(lab: Lab) -> None:
    """Runs are related by MLflow's own tag and found by ours; parameters, dataset, spec and commit are there."""
    trial_id = lab.trial(0)
    lab.show()
    parent, child = lab.runs()
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.data.tags["sweepserve.traceparent"] for run in (parent, child)} == {TRACE}
    assert {
        name: child.data.tags[f"sweepserve.{name}"] for name in ("sweep", "trial", "family", "dataset", "state")
    } == {
        "sweep": lab.id,
        "trial": trial_id,
        "family": "narrow_resnet",
        "dataset": "digits",
        "state": "running",
    }
    assert child.data.tags.get("mlflow.source.git.commit") == commit_of(Path(mlflow_tracker.__file__))
    assert child.data.params == {"train.learning_rate": "0.001", "model.channels": "[8, 16, 16, 16]"}
    assert parent.data.params["search.trials"] == "3"
    (entered,) = child.inputs.dataset_inputs
    data = lab.spec.trial({"train.learning_rate": 0.001}).data
    assert (entered.dataset.name, entered.dataset.digest) == ("digits", data.digest)
    written = Path(lab.client.download_artifacts(parent.info.run_id, "spec.json")).read_text()
    assert json.loads(written) == lab.spec.to_dict()


def test_the_page_of_an_experiment_opens_on_its_runs(lab: Lab) -> None:
    """MLflow opens an experiment of no kind on the traces of language models, of which there are none here."""
    lab.show()
    assert lab.client.get_experiment_by_name(lab.name).tags["mlflow.experimentKind"] == "custom_model_development"


def test_every_measurement_is_shown_once_with_its_step_and_time(lab: Lab) -> None:
    """Values, steps and times are the store's; NaN stays NaN; more than MLflow takes in one call is fine."""
    trial_id = lab.trial(0)
    for step in range(1, 701):
        lab.measure(trial_id, step, loss=math.nan if step == 2 else 1 / step, accuracy=step / 1000)
    lab.show()
    (child,) = lab.runs()[1:]
    history = lab.client.get_metric_history(child.info.run_id, "validation/loss")
    assert [one.step for one in history] == list(range(1, 701))
    assert math.isnan(history[1].value)
    assert history[699].value == 1 / 700
    measured = lab.store.measurements(lab.id)
    assert [one.timestamp for one in history] == [round(one.at.timestamp() * 1000) for one in measured]


def test_every_objective_is_shown(tracking: Settings) -> None:
    """The first as what trials are compared by, and with several each by its name."""
    objectives = [{"metric": "validation/accuracy", "mode": "max"}, {"metric": "model/parameters", "mode": "min"}]
    lab = Lab(tracking, "several", objectives=objectives)
    trial = lab.trial(0)
    lab.store.move_trial(trial, TrialState.COMPLETED, at=lab.at(), values=(0.9, 1200.0))
    lab.show()
    _, child = lab.runs()
    assert {name: value for name, value in child.data.metrics.items() if name.startswith("objective")} == {
        "objective": 0.9,
        "objective/validation/accuracy": 0.9,
        "objective/model/parameters": 1200.0,
    }


def test_ends_are_shown_with_state_reason_and_value(lab: Lab) -> None:
    """Each final state has its status and tag; only a completed trial has an objective, an illegal one has no data."""
    lab.show()
    for number, (state, value) in enumerate(
        [(TrialState.COMPLETED, 0.9), (TrialState.PRUNED, 0.4), (TrialState.STOPPED, None), (TrialState.FAILED, None)]
    ):
        lab.finish(lab.trial(number, illegal=number == 3), state, value, reason=f"because {number}")
    lab.store.move_sweep(lab.id, SweepState.COMPLETED, at=lab.at(), reason="done")
    lab.show()
    parent, *children = lab.runs()
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED", "KILLED", "FAILED"]
    states = ["completed", "pruned", "stopped", "failed"]
    assert [run.data.tags["sweepserve.state"] for run in children] == states
    assert [run.data.tags["sweepserve.reason"] for run in children] == [f"because {n}" for n in range(4)]
    assert [run.data.metrics.get("objective") for run in children] == [0.9, None, None, None]
    assert [len(run.inputs.dataset_inputs) for run in children] == [1, 1, 1, 0]
    assert (parent.info.status, parent.data.tags["sweepserve.state"]) == ("FINISHED", "completed")
    assert parent.info.end_time == round(lab.now.timestamp() * 1000)


def test_what_a_sweep_waits_for_is_not_its_reason_in_mlflow(lab: Lab) -> None:
    """Nobody would take it back there; that it is extended meanwhile changes nothing."""
    lab.store.add_wait(lab.id, reason="no room", at=lab.at())
    lab.store.change_spec(lab.id, lab.spec.to_dict(), seen=lab.store.sweep(lab.id), at=lab.at())
    lab.show()
    tags = lab.runs()[0].data.tags
    assert (tags["sweepserve.state"], tags["sweepserve.reason"]) == ("running", "")


def test_what_goes_on_after_its_end_runs_in_mlflow_too(lab: Lab) -> None:
    """A sweep and its trials, also one that had failed before its first step."""
    for number, state in enumerate((TrialState.FAILED, TrialState.STOPPED)):
        lab.finish(lab.trial(number), state)
    lab.store.move_sweep(lab.id, SweepState.FAILED, at=lab.at())
    lab.show()
    assert [run.info.status for run in lab.runs()] == ["FAILED", "FAILED", "KILLED"]
    for state in (TrialState.PAUSED, TrialState.RUNNING):
        for number in range(2):
            lab.finish(f"{lab.id}-{number:04}", state)
    lab.store.move_sweep(lab.id, SweepState.QUEUED, at=lab.at())
    lab.show()
    assert [run.info.status for run in lab.runs()] == ["RUNNING"] * 3


def test_an_extension_is_shown_beside_the_parameters_of_the_start(lab: Lab) -> None:
    """MLflow takes no other value of a parameter: the new one is a tag, also where the first event comes once more."""
    lab.show()
    run_id = lab.runs()[0].info.run_id
    lab.extend(8, "2h")
    lab.client.set_tag(run_id, "sweepserve.event", "0")
    for trials in (8, 9):
        lab.tracker = MlflowTracker(lab.settings)
        lab.extend(trials, "2h")
        lab.show()
        run = lab.runs()[0].data
        assert (run.params["search.trials"], run.params["stop.time_budget"]) == ("3", "null")
        named = ("search.trials", "stop.time_budget", "search.sampler")
        assert [run.tags.get(f"sweepserve.{name}") for name in named] == [str(trials), "2h", None]
        written = Path(lab.client.download_artifacts(run_id, "spec.json")).read_text()
        assert json.loads(written) == lab.store.sweep(lab.id).spec


def test_of_several_extensions_before_the_first_look_the_last_is_shown(lab: Lab) -> None:
    """Each has its turn."""
    lab.extend(8)
    lab.extend(9)
    lab.show()
    assert lab.runs()[0].data.tags["sweepserve.search.trials"] == "9"


def test_repeats_tell_what_their_point_came_to(tracking: Settings) -> None:
    """Each run has its seed; the first run of a point has mean, standard deviation and best of those that completed."""
    lab = Lab(tracking, "repeats", search={"trials": 2, "repeats": 3, "seed": 7})
    for number, value in enumerate((0.5, None, 0.75, 0.625)):
        state = TrialState.FAILED if value is None else TrialState.COMPLETED
        lab.finish(lab.trial(number), state, value)
    lab.show()
    _, *children = lab.runs()
    assert [run.data.params["train.seed"] for run in children] == ["7", "8", "9", "7"]
    assert [run.data.tags["sweepserve.point"] for run in children] == ["0", "0", "0", "3"]
    said = [
        {name.partition("/")[2]: value for name, value in run.data.metrics.items() if "/" in name} for run in children
    ]
    spread = pytest.approx(0.125 * 2**0.5)
    assert said == [{"mean": 0.625, "best": 0.75, "standard_deviation": spread}, {}, {}, {"mean": 0.625, "best": 0.625}]


def test_what_a_population_does_is_shown_over_time(tracking: Settings) -> None:
    """Parameters stay those of the start, for MLflow takes no others; settings are metrics, and an exploit is a tag."""
    lab = Lab(tracking, "people", search={"trials": 2, "pbt": {"interval": 2}}, stop={"pruner": "none"})
    one, two = lab.trial(0), lab.trial(1)
    lab.measure(one, 2, **{"validation/accuracy": 0.5})
    before = lab.store.trial(one).point
    exploit = Exploit(
        trial_id=one, step=2, source=two, before=before, point={"train.learning_rate": 0.004}, checkpoint="/c"
    )
    lab.store.add_exploits(lab.id, [exploit], at=lab.at())
    lab.store.move_trial(one, TrialState.PAUSED, at=lab.at())  # told with the point as it is now
    lab.show()
    lab.show()
    run = lab.runs()[1]
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.tags["sweepserve.exploit.000002"] == f"goes on from trial {two} with train.learning_rate = 0.004"
    history = lab.client.get_metric_history(run.info.run_id, "settings/train.learning_rate")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.001), (2, 0.004)]


def test_the_same_events_again_change_nothing(lab: Lab, saved: Path) -> None:
    """Shown again by the same tracker, by one that starts afresh, and all anew after one that died before its note."""
    lab.fill(saved)
    lab.show()
    once = lab.everything()
    lab.show()
    for noted in (lab.store.sweep(lab.id).last_event, 0):
        lab.client.set_tag(lab.runs()[0].info.run_id, "sweepserve.event", str(noted))
        lab.tracker = MlflowTracker(lab.settings)
        lab.show()
        assert lab.everything() == once


def test_runs_in_the_bin_are_taken_out(lab: Lab) -> None:
    """Somebody deleted runs in MLflow's page while the sweep ran: they come back rather than block it."""
    trial_id = lab.trial(0)
    lab.show()
    for run in lab.runs():
        lab.client.delete_run(run.info.run_id)
    page = MlflowTracker(lab.settings).url(lab.store.sweep(lab.id))
    assert {run.info.lifecycle_stage for run in lab.runs()} == {"deleted"}, f"asking for {page} restored them"
    lab.measure(trial_id, 1, accuracy=0.5)
    with pytest.raises(Unavailable):
        lab.show()
    lab.show()
    assert [run.info.lifecycle_stage for run in lab.runs()] == ["active", "active"]
    assert lab.runs()[1].data.metrics == {"validation/accuracy": 0.5}


@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_is_made_when_nobody_waits_any_more_is_the_only_one_or_goes(tracking: Settings, late: bool) -> None:
    """The run is looked for before it is made again; where it comes later still, one of the two is deleted."""
    with impatient_way(tracking.tracking_url) as way:
        lab = Lab(replace(tracking, mlflow_url=way.url), f"late{late:d}")
        trial_id = lab.trial(0)
        way.late = late
        for _ in ("the sweep's run", "the trial's"):
            way.patient = False
            with pytest.raises(Unavailable):
                lab.show()
        lab.show()
        way.catch_up()
        assert len(lab.runs()) == (4 if late else 2)
        lab.finish(trial_id, TrialState.COMPLETED, 0.5)
        lab.store.move_sweep(lab.id, SweepState.COMPLETED, at=lab.at())
        lab.show()
        once = lab.everything()
        lab.tracker = MlflowTracker(lab.settings)
        lab.show()
        assert lab.everything() == once
        parent, child = (run for run in lab.runs() if run.info.lifecycle_stage == "active")
    assert [parent.info.status, child.info.status] == ["FINISHED", "FINISHED"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics == {"objective": 0.5}


def test_of_a_deleted_sweep_nothing_stays_that_mlflow_does_not_collect(lab: Lab, saved: Path) -> None:
    """Runs and models are in its bin, versions gone, models of others as they were; asked again, it changes nothing."""
    trial_id = lab.trial(0)
    lab.finish(trial_id, TrialState.COMPLETED, 0.5)
    lab.version(trial_id, 0.5, saved)
    lab.show()
    (experiment,) = {run.info.experiment_id for run in lab.runs()}
    other = lab.client.create_logged_model(experiment, "another", tags={"sweepserve.sweep": "another"})
    assert len(lab.client.search_logged_models([experiment])) == 2
    for _ in range(2):
        lab.tracker.forget(lab.store.sweep(lab.id))
        assert [one.model_id for one in lab.client.search_logged_models([experiment])] == [other.model_id]
        assert lab.client.search_model_versions(f"name = '{lab.name}'") == []
        assert {run.info.lifecycle_stage for run in lab.runs()} == {"deleted"}


def test_pictures_are_artifacts_of_the_parent(lab: Lab, saved: Path) -> None:
    """What the driver drew is on the sweep's run."""
    lab.fill(saved)
    lab.show()
    files = lab.client.list_artifacts(lab.runs()[0].info.run_id, "pictures")
    assert [file.path for file in files] == ["pictures/learning_curves.png"]


def test_the_newest_version_is_the_champion(lab: Lab, saved: Path) -> None:
    """Versions are registered under the sweep's name with tags to find them by; the alias is on the newest."""
    lab.fill(saved)
    lab.show()
    champion = lab.client.get_model_version_by_alias(lab.name, "champion")
    assert champion.tags == {
        "sweepserve.version": "2",
        "sweepserve.sweep": lab.id,
        "sweepserve.trial": f"{lab.id}-0001",
    }
    assert champion.run_id == lab.runs()[2].info.run_id
    assert lab.runs()[0].data.tags["sweepserve.champion"] == f"{lab.id}-0001"


def test_the_alias_is_on_the_champion(lab: Lab, saved: Path) -> None:
    """Also where a person promotes or sweeps are deleted, all of them too; an event that comes late moves nothing."""
    lab.fill(saved)
    first, before = lab.id, lab.store.events(lab.id)
    lab.store.promote(lab.name, 1, at=lab.at())
    assert lab.champion() == f"{first}-0000"
    lab.tracker.track(lab.store.sweep(lab.id), [event for event in before if event.kind == "model"])
    assert lab.champion() == f"{first}-0000"
    assert lab.another("second22", saved) == lab.champion()
    lab.delete("second22")
    assert lab.champion() == f"{first}-0000"
    lab.delete(first)
    assert lab.another("third222", saved) == lab.champion()


def test_of_a_sweep_that_has_ended_the_tracker_remembers_no_runs(lab: Lab) -> None:
    """Should it go on they are looked for again, wherever they are by then."""
    lab.trial(0)
    lab.store.move_sweep(lab.id, SweepState.COMPLETED, at=lab.at())
    lab.show()
    for run in lab.runs():
        lab.client.delete_run(run.info.run_id)
    lab.store.move_sweep(lab.id, SweepState.QUEUED, at=lab.at())
    lab.show()
    assert [run.info.lifecycle_stage for run in lab.runs()] == ["active", "active"]


@pytest.fixture(name="logged")
def _logged(lab: Lab, saved: Path) -> Iterator[Path]:
    """The champion as MLflow keeps it."""
    lab.fill(saved)
    lab.show()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(lab.settings.tracking_url)
    yield Path(mlflow.artifacts.download_artifacts(f"models:/{lab.name}@champion"))
    mlflow.set_tracking_uri(before)


def test_the_logged_model_answers_any_number_of_images(lab: Lab, saved: Path, logged: Path) -> None:
    """Loaded by MLflow, the model gives at batch 1 and 8 what the saved model gives, and refuses other pixels."""
    loaded = mlflow.pyfunc.load_model(f"models:/{lab.name}@champion")
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16), dtype=np.uint8)
    expected = load_model(saved).outputs([image[0] for image in images])
    for size in (1, 8):
        answer = loaded.predict(images[:size])
        torch.testing.assert_close(torch.from_numpy(answer["outputs"]), expected[:size].float(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answer["probabilities"].sum(1), 1, rtol=1e-5)
    with pytest.raises(mlflow.MlflowException, match=r"[Ss]hape"):
        loaded.predict(images[:, :, :8])


def test_no_pickle_is_logged(logged: Path) -> None:
    """Every file of the logged model is source, text, JSON, YAML, safetensors, or an archive of sources."""
    files = [file for file in logged.rglob("*") if file.is_file()]
    suffixes = {file.suffix for file in files if file.name not in ("MLmodel", "registered_model_meta")}
    assert suffixes == {".py", ".txt", ".json", ".yaml", ".safetensors", ".zip"}
    assert not [file for file in files if file.read_bytes()[:1] == b"\x80"]  # how a pickle begins
    (archive,) = logged.rglob("*.zip")
    with zipfile.ZipFile(archive) as code:
        assert {Path(name).suffix for name in code.namelist()} == {".py"}
    assert len(files) < 20, "MLflow is asked once for each"


LOADED_ELSEWHERE = """
import sys, mlflow, numpy
answer = mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.zeros((2, 1, 16, 16), numpy.uint8))
import trainables
print(trainables.__file__, answer["outputs"].shape[0])
"""


def test_a_logged_model_is_run_by_the_code_that_goes_with_it(logged: Path, tmp_path: Path) -> None:
    """In a process of its own, whatever is installed there."""
    command = [sys.executable, "-W", "ignore", "-c", LOADED_ELSEWHERE, str(logged)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source, count = done.stdout.split()
    assert source == str(logged / "code" / "trainables.zip" / "trainables" / "__init__.py")
    assert count == "2"


def test_the_url_is_that_of_the_parent_run(lab: Lab) -> None:
    """There is a page once there is a run, for a tracker that starts afresh too; people may reach it elsewhere."""
    assert lab.tracker.url(lab.store.sweep(lab.id)) is None
    lab.show()
    run = lab.runs()[0].info
    page = f"{lab.settings.tracking_url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert lab.tracker.url(lab.store.sweep(lab.id)) == page
    assert MlflowTracker(lab.settings).url(lab.store.sweep(lab.id)) == page
    elsewhere = replace(lab.settings, mlflow_public_url="https://lab.example/mlflow/")
    shown = page.replace(lab.settings.tracking_url, "https://lab.example/mlflow")
    assert MlflowTracker(elsewhere).url(lab.store.sweep(lab.id)) == shown
