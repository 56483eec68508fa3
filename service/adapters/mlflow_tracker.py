"""Sweeps in MLflow: an experiment a name, a parent run a sweep, a child run a trial, a registered model's champion.

Only `MlflowClient` is used, never the fluent functions with their hidden current run. Everything that is made carries
tags by which it is found again, and the parent run's tag `sweepserve.event` is the number of the newest event shown:
whatever dies in the middle, the events after that number are shown again, over what is there.
"""

from __future__ import annotations

import json
import logging
import shutil
import statistics
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, final

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.environment_variables import (
    MLFLOW_DISABLE_TELEMETRY,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client

from service.adapters.mlflow_package import package
from service.domain import Event, Sweep, SweepState, TrialState
from service.errors import Unavailable
from service.settings import Settings
from service.spec import SweepSpec
from trainables.data.dataset import DatasetConfig

logger = logging.getLogger(__name__)

CHAMPION = "champion"
METRICS_A_CALL = 1000
"""MLflow takes no more in one `log_batch`."""
PARAM_LENGTH = 6000
"""And no longer value of a parameter."""
TAG_LENGTH = 5000
PATIENCE = 2.0
"""Seconds that whoever asks for a page waits for MLflow."""

HABITS = {
    MLFLOW_HTTP_REQUEST_TIMEOUT: 20,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES: 1,
    MLFLOW_DISABLE_TELEMETRY: True,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR: False,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: True,
}
_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}  # or its page opens on traces of language models
_RUN_STATUS = {
    SweepState.COMPLETED: "FINISHED",
    SweepState.STOPPED: "KILLED",
    SweepState.FAILED: "FAILED",
    TrialState.COMPLETED: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # as planned; MLflow shows the others in red
    TrialState.STOPPED: "KILLED",
    TrialState.FAILED: "FAILED",
}


@dataclass(slots=True)
class _Runs:
    """What MLflow has of a sweep."""

    experiment: str
    parent: str
    shown: int = 0
    """The number of the newest event shown."""
    trials: dict[str, str] = field(default_factory=dict)
    """Run ids by trial id."""
    binned: list[str] = field(default_factory=list)
    """Ids of the runs that somebody deleted."""


@final
class MlflowTracker:
    """`ports.Tracker` on the MLflow server of these settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._commit = _commit()
        self._known: dict[str, _Runs] = {}
        self._pages: dict[str, str] = {}
        self._looking = threading.Lock()

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        """Shows these events, in order; those that MLflow has already are left out.

        Raises:
            Unavailable: MLflow did not take them all.
        """
        try:
            runs = self._known.get(sweep.id) or self._ready(sweep)
            self._known[sweep.id], self._pages[sweep.id] = runs, self._page(runs)
            self._show(sweep, runs, [event for event in events if event.number > runs.shown])
        except (MlflowException, OSError) as error:
            self._known.pop(sweep.id, None)  # it may have lost what we knew
            raise Unavailable(f"MLflow at {self._settings.tracking_url} refused: {error}") from error

    def forget(self, sweep: Sweep) -> None:
        """Puts the sweep's runs into MLflow's bin, and takes its versions out of the registry.

        Raises:
            Unavailable: MLflow did not do all of it.
        """
        try:
            runs = self._found(sweep)
            if runs is not None:
                for run_id in {runs.parent, *runs.trials.values()} - set(runs.binned):
                    self._client.delete_run(run_id)
            for version in self._client.search_model_versions(f"name = '{sweep.name}'"):
                if version.tags.get("sweepserve.sweep") == sweep.id:
                    self._client.delete_model_version(sweep.name, version.version)
        except (MlflowException, OSError) as error:
            raise Unavailable(f"MLflow at {self._settings.tracking_url} refused: {error}") from error
        self._known.pop(sweep.id, None)
        self._pages.pop(sweep.id, None)

    def url(self, sweep: Sweep) -> str | None:
        """The page of the sweep's run; None while there is none, or while MLflow takes its time to answer."""
        if sweep.id not in self._pages and self._looking.acquire(blocking=False):
            search = threading.Thread(target=self._look_for_page, args=(sweep,), daemon=True)
            search.start()
            search.join(PATIENCE)
        return self._pages.get(sweep.id)

    def _look_for_page(self, sweep: Sweep) -> None:
        try:
            runs = self._found(sweep)
        except (MlflowException, OSError) as error:
            logger.info("no page of sweep %s: %s", sweep.id, error)
        else:
            if runs is not None:
                self._pages[sweep.id] = self._page(runs)
        finally:
            self._looking.release()

    def _page(self, runs: _Runs) -> str:
        return f"{self._settings.tracking_url}/#/experiments/{runs.experiment}/runs/{runs.parent}"

    def _ready(self, sweep: Sweep) -> _Runs:
        """The sweep's runs, ready to be written to: made, or taken out of the bin, where need be."""
        experiment = self._experiment(sweep.name)
        runs = self._found(sweep) or self._made(sweep, experiment)
        for run_id in runs.binned:
            self._client.restore_run(run_id)
        return runs

    def _found(self, sweep: Sweep) -> _Runs | None:
        """What MLflow has of the sweep."""
        experiment = self._client.get_experiment_by_name(sweep.name)
        if experiment is None:
            return None
        runs = _Runs(experiment.experiment_id, "")
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [experiment.experiment_id], f"tags.`sweepserve.sweep` = '{sweep.id}'", ViewType.ALL, page_token=token
            )
            for run in page:
                if run.info.lifecycle_stage == LifecycleStage.DELETED:
                    runs.binned.append(run.info.run_id)
                trial = run.data.tags.get("sweepserve.trial")
                if trial is not None:
                    runs.trials[trial] = run.info.run_id
                else:
                    runs.parent, runs.shown = run.info.run_id, int(run.data.tags.get("sweepserve.event", 0))
            token = page.token or ""
        return runs if runs.parent else None

    def _made(self, sweep: Sweep, experiment: str) -> _Runs:
        run = self._client.create_run(
            experiment,
            start_time=_milliseconds(sweep.created_at),
            run_name=f"{sweep.name} {sweep.id}",
            tags=self._tags(sweep),
        )
        return _Runs(experiment, run.info.run_id)

    def _experiment(self, name: str) -> str:
        known: Experiment | None = self._client.get_experiment_by_name(name)
        if known is None:
            return str(self._client.create_experiment(name, tags=_EXPERIMENT))
        if known.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)

    def _tags(self, sweep: Sweep) -> dict[str, str]:
        tags = {
            "sweepserve.sweep": sweep.id,
            "sweepserve.family": sweep.spec["family"],
            "sweepserve.dataset": sweep.spec["data"]["name"],
            "mlflow.source.name": "sweepserve",
            "mlflow.source.type": "JOB",
        }
        if sweep.trace:
            tags["sweepserve.traceparent"] = sweep.trace
        return {**tags, "mlflow.source.git.commit": self._commit} if self._commit else tags

    def _show(self, sweep: Sweep, runs: _Runs, events: Sequence[Event]) -> None:
        metrics: dict[str, list[Metric]] = defaultdict(list)
        for event in events:
            match event.kind:
                case "measurement":
                    at = _milliseconds(event.at)
                    metrics[event.data["trial_id"]] += [
                        Metric(name, value, at, event.data["step"]) for name, value in event.data["metrics"].items()
                    ]
                case "trial":
                    self._log(runs, event.data["id"], metrics.pop(event.data["id"], []))
                    self._show_trial(sweep, runs, event)
                case "exploit":
                    metrics[event.data["trial_id"]] += _settings(event.data["point"], event.data["step"], event.at)
                    self._show_exploit(runs, event.data)
                case "model":
                    self._show_model(runs, event.data)
                case "sweep":
                    self._show_sweep(sweep, runs, event)
        for trial_id, left in metrics.items():
            self._log(runs, trial_id, left)
        if events:
            runs.shown = events[-1].number
            self._client.set_tag(runs.parent, "sweepserve.event", str(runs.shown))

    def _log(self, runs: _Runs, trial_id: str, metrics: Sequence[Metric]) -> None:
        if trial_id in runs.trials:  # else somebody removed the run for good
            for start in range(0, len(metrics), METRICS_A_CALL):
                self._client.log_batch(runs.trials[trial_id], metrics[start : start + METRICS_A_CALL])

    def _show_sweep(self, sweep: Sweep, runs: _Runs, event: Event) -> None:
        if event.number == 1:
            spec = SweepSpec.from_dict(sweep.spec)
            searched = {f"space.{name}": parameter.to_dict() for name, parameter in spec.space.items()}
            parts = {part: getattr(spec, part).to_dict() for part in ("search", "stop", "resources")}
            settings = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
            data = spec.trial(spec.space.corners()[0]).data
            self._describe(runs.parent, {**spec.fixed, **searched, **settings}, data)
            self._client.log_dict(runs.parent, dict(sweep.spec), "spec.json")
        state = SweepState(event.data["state"])
        self._mark(runs.parent, state, event.data["reason"])
        if state.final:
            pictures = self._settings.pictures(sweep.id)
            if pictures.is_dir():
                self._client.log_artifacts(runs.parent, str(pictures), "pictures")
            self._client.set_terminated(runs.parent, _RUN_STATUS[state], _milliseconds(event.at))
        elif state is SweepState.QUEUED and event.number > 1:  # it goes on after its end
            self._client.update_run(runs.parent, "RUNNING")

    def _show_trial(self, sweep: Sweep, runs: _Runs, event: Event) -> None:
        trial, state = event.data, TrialState(event.data["state"])
        repeat = trial.get("repeat", 0)
        first = str(trial["number"] - repeat)
        if trial["id"] not in runs.trials:
            run = self._client.create_run(
                runs.experiment,
                start_time=_milliseconds(datetime.fromisoformat(trial["created_at"])),
                run_name=f"trial {trial['number']}",
                tags={
                    **self._tags(sweep),
                    "sweepserve.trial": trial["id"],
                    "sweepserve.point": first,
                    "mlflow.parentRunId": runs.parent,
                },
            )
            runs.trials[trial["id"]] = run.info.run_id
            if sweep.spec["search"].get("pbt") is not None:
                self._log(runs, trial["id"], _settings(trial["point"], 0, event.at))
        run_id = runs.trials[trial["id"]]
        if not state.final:
            spec = SweepSpec.from_dict(sweep.spec)
            exploits = trial.get("exploits")
            point = exploits[0]["before"] if exploits else trial["point"]  # MLflow takes no other value of a parameter
            config = spec.trial(point, repeat)
            repeated = {"train.seed": config.train.seed, "repeat": repeat} if spec.search.repeats > 1 else {}
            self._describe(run_id, {**spec.fixed, **point, **repeated}, config.data)
            if state is TrialState.RUNNING and trial["step"]:  # it goes on after its end
                self._client.update_run(run_id, "RUNNING")
        self._mark(run_id, state, trial["reason"])
        if state is TrialState.COMPLETED:  # the value by which trials are compared: of the weights that were kept
            at, names = _milliseconds(event.at), _objectives(sweep)
            values = [
                Metric(name, number, at, trial["step"])
                for name, number in zip(names, [trial["values"][0], *trial["values"]], strict=False)
            ]
            self._client.log_batch(run_id, values)
            if sweep.spec["search"].get("repeats", 1) > 1:
                self._show_point(sweep, runs, first, values[0])
        if state.final:
            self._client.set_terminated(run_id, _RUN_STATUS[state], _milliseconds(event.at))

    def _show_exploit(self, runs: _Runs, exploit: Mapping[str, Any]) -> None:
        """As a tag; what it made of the settings are metrics."""
        said = ", ".join(f"{name} = {_text(value)}" for name, value in exploit["point"].items())
        if exploit["trial_id"] in runs.trials:
            tag = f"sweepserve.exploit.{exploit['step']:06}"
            text = f"goes on from trial {exploit['source']} with {said}"
            self._client.set_tag(runs.trials[exploit["trial_id"]], tag, text[:TAG_LENGTH])

    def _show_point(self, sweep: Sweep, runs: _Runs, first: str, newest: Metric) -> None:
        """What the trials of a point have come to so far, on the run of its first one that MLflow has."""
        query = f"tags.`sweepserve.sweep` = '{sweep.id}' and tags.`sweepserve.point` = '{first}'"
        found = self._client.search_runs([runs.experiment], query, max_results=1000, order_by=["start_time ASC"])
        values = [run.data.metrics["objective"] for run in found if "objective" in run.data.metrics]
        if values:
            best = max if sweep.spec["objectives"][0]["mode"] == "max" else min
            spread = {"objective/standard_deviation": statistics.stdev(values)} if len(values) > 1 else {}
            said = {"objective/mean": statistics.fmean(values), "objective/best": best(values), **spread}
            at, step = newest.timestamp, len(values)
            self._client.log_batch(found[0].info.run_id, [Metric(name, one, at, step) for name, one in said.items()])

    def _describe(self, run_id: str, params: Mapping[str, Any], data: DatasetConfig) -> None:
        given = [Param(name, _text(value)[:PARAM_LENGTH]) for name, value in params.items()]
        self._client.log_batch(run_id, params=given)
        source = json.dumps(data.to_dict())
        dataset = Dataset(name=data.name, digest=data.digest, source_type="sweepserve", source=source)
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _mark(self, run_id: str, state: SweepState | TrialState, reason: str) -> None:
        tags = {"sweepserve.state": state.value, "sweepserve.reason": reason[:TAG_LENGTH]}
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _show_model(self, runs: _Runs, version: Mapping[str, Any]) -> None:
        name, trial_id = version["name"], version["trial_id"]
        registered = self._client.search_registered_models(f"name = '{name}'")
        if not registered:
            self._client.create_registered_model(name)
        known = {
            int(one.tags["sweepserve.version"]): one.version
            for one in self._client.search_model_versions(f"name = '{name}'")
            if "sweepserve.version" in one.tags
        }
        number = version["version"]
        if number not in known:
            saved = Path(version["path"])
            if not saved.is_dir() or trial_id not in runs.trials:
                logger.warning("version %d of %s is not shown: it is not at %s any more", number, name, saved)
                return
            known[number] = self._register(runs, version, saved)
        # Sweeps of one name are shown one by one, so promotions may come here out of their order.
        promotion = version.get("promotion", number)
        if registered and int(registered[0].tags.get("sweepserve.promotion", 0)) > promotion:
            return
        self._client.set_registered_model_alias(name, CHAMPION, known[number])
        self._client.set_registered_model_tag(name, "sweepserve.promotion", str(promotion))
        self._client.set_tag(runs.parent, "sweepserve.champion", trial_id)

    def _register(self, runs: _Runs, version: Mapping[str, Any], saved: Path) -> str:
        name, trial_id = version["name"], version["trial_id"]
        tags = {
            "sweepserve.version": str(version["version"]),
            "sweepserve.sweep": version["sweep_id"],
            "sweepserve.trial": trial_id,
        }
        same = f"tags.`sweepserve.trial` = '{trial_id}'"
        for unfinished in self._client.search_logged_models([runs.experiment], same):
            self._client.delete_logged_model(unfinished.model_id)
        run_id = runs.trials[trial_id]
        logged = self._client.create_logged_model(runs.experiment, name, run_id, tags, model_type="sweepserve")
        with tempfile.TemporaryDirectory(prefix="sweepserve-model-") as scratch:
            folder = Path(scratch) / "model"
            package(saved, folder, run_id=run_id, model_id=logged.model_id)
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, "READY")
        registered = self._client.create_model_version(
            name, logged.artifact_location, run_id, tags, await_creation_for=0, model_id=logged.model_id
        )
        return str(registered.version)


def connect(settings: Settings) -> MlflowClient:
    """A client of the MLflow server of these settings.

    MLflow's waits, minutes by default, are made short in this process, and its telemetry and prints are turned off,
    unless the environment says otherwise.
    """
    for variable, value in HABITS.items():
        if not variable.is_set():
            variable.set(value)
    set_telemetry_client()
    return MlflowClient(settings.tracking_url, settings.tracking_url)


def _commit() -> str | None:
    """The git commit of this code, if it runs from a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None


def _settings(point: Mapping[str, Any], step: int, at: datetime) -> list[Metric]:
    """The numbers among settings, from a step on."""
    numbers = {name: one for name, one in point.items() if isinstance(one, int | float) and not isinstance(one, bool)}
    return [Metric(f"settings/{name}", one, _milliseconds(at), step) for name, one in numbers.items()]


def _objectives(sweep: Sweep) -> list[str]:
    """What a trial's first value is called in MLflow; with several, then what each of them is."""
    several = sweep.spec["objectives"] if len(sweep.spec["objectives"]) > 1 else []
    return ["objective", *(f"objective/{one['metric']}" for one in several)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=dict)


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
