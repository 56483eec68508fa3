"""Sweeps in MLflow: an experiment a name, a parent run a sweep, a child run a trial, a registered model's champion.

Only `MlflowClient` is used, never the fluent functions with their hidden current run. Everything that is made carries
tags by which it is found again, and the parent run's tag `sweepserve.event` is the number of the newest event shown:
whatever dies in the middle, the events after that number are shown again, over what is there.
"""

from __future__ import annotations

import json
import logging
import statistics
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, final

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from service.adapters import mlflow_runs
from service.adapters.git_commit import commit_of
from service.adapters.mlflow_connection import connect
from service.adapters.mlflow_registry import forget_models, show_model
from service.adapters.mlflow_runs import Runs, milliseconds
from service.domain import Event, Sweep, SweepState, TrialState
from service.errors import Unavailable
from service.settings import Settings
from service.spec import SweepSpec
from trainables.config import ConfigError
from trainables.data.dataset import DatasetConfig
from trainables.trial import TrialConfig

logger = logging.getLogger(__name__)

METRICS_A_CALL = 900
"""MLflow takes no more than 1,000 metrics and tags in one `log_batch`."""
PARAM_LENGTH = 6000
"""And no longer value of a parameter."""
TAG_LENGTH = 5000
PATIENCE = 2.0
"""Seconds that whoever asks for a page waits for MLflow."""

_RUN_STATUS = {
    SweepState.COMPLETED: "FINISHED",
    SweepState.STOPPED: "KILLED",
    SweepState.FAILED: "FAILED",
    TrialState.COMPLETED: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # as planned; MLflow shows the others in red
    TrialState.STOPPED: "KILLED",
    TrialState.FAILED: "FAILED",
}


@final
class MlflowTracker:
    """`ports.Tracker` on the MLflow server of these settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._commit = commit_of(Path(__file__))
        self._known: dict[str, Runs] = {}
        self._pages: dict[str, str] = {}
        self._looking = threading.Lock()

    def track(self, sweep: Sweep, events: Sequence[Event]) -> None:
        """Shows these events, in order; those that MLflow has already are left out.

        Raises:
            Unavailable: MLflow did not take them all.
        """
        try:
            runs = self._known.get(sweep.id) or mlflow_runs.ready(self._client, sweep, self._tags(sweep))
            self._known[sweep.id], self._pages[sweep.id] = runs, self._page(runs)
            self._show(sweep, runs, [event for event in events if event.number > runs.shown])
            if sweep.state.final and runs.shown >= sweep.last_event:
                del self._known[sweep.id]  # thousands of trials; should it go on, it is found again
        except (MlflowException, OSError) as error:
            self._known.pop(sweep.id, None)  # it may have lost what we knew
            raise Unavailable(f"MLflow at {self._settings.tracking_url} refused: {error}") from error

    def forget(self, sweep: Sweep) -> None:
        """Puts the sweep's runs and models into MLflow's bin, and takes its versions out of the registry.

        Raises:
            Unavailable: MLflow did not do all of it.
        """
        try:
            forget_models(self._client, sweep)
            runs = mlflow_runs.find(self._client, sweep)
            if runs is not None:
                for run_id in {runs.parent, *runs.trials.values(), *runs.spare} - set(runs.binned):
                    self._client.delete_run(run_id)
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
            runs = mlflow_runs.find(self._client, sweep)
        except (MlflowException, OSError) as error:
            logger.info("no page of sweep %s: %s", sweep.id, error)
        else:
            if runs is not None:
                self._pages[sweep.id] = self._page(runs)
        finally:
            self._looking.release()

    def _page(self, runs: Runs) -> str:
        return f"{self._settings.pages_url}/#/experiments/{runs.experiment}/runs/{runs.parent}"

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

    def _show(self, sweep: Sweep, runs: Runs, events: Sequence[Event]) -> None:
        metrics: dict[str, list[Metric]] = defaultdict(list)
        for event in events:
            match event.kind:
                case "measurement":
                    at = milliseconds(event.at)
                    metrics[event.data["trial_id"]] += [
                        Metric(name, value, at, event.data["step"]) for name, value in event.data["metrics"].items()
                    ]
                case "trial":
                    self._show_trial(sweep, runs, event, metrics.pop(event.data["id"], []))
                case "exploit":
                    metrics[event.data["trial_id"]] += _settings(event.data["point"], event.data["step"], event.at)
                    self._show_exploit(runs, event.data)
                case "model":
                    show_model(self._client, runs, event.data)
                case "sweep" if "spec" in event.data:  # it did not move: its reason may be what it waits for
                    self._show_spec(runs, event.data["spec"])
                case "sweep":
                    self._show_sweep(sweep, runs, event)
        for trial_id, left in metrics.items():
            self._log(runs, trial_id, left)
        if events:
            runs.shown = events[-1].number
            self._client.set_tag(runs.parent, "sweepserve.event", str(runs.shown))

    def _log(self, runs: Runs, trial_id: str, metrics: Sequence[Metric], tags: Sequence[RunTag] = ()) -> None:
        if trial_id in runs.trials:  # else somebody removed the run for good
            run_id, last = runs.trials[trial_id], max(0, len(metrics) - 1) // METRICS_A_CALL * METRICS_A_CALL
            for start in range(0, last, METRICS_A_CALL):
                self._client.log_batch(run_id, metrics[start : start + METRICS_A_CALL])
            if metrics or tags:
                self._client.log_batch(run_id, metrics[last:], tags=tags)

    def _show_sweep(self, sweep: Sweep, runs: Runs, event: Event) -> None:
        if event.number == 1:
            self._show_spec(runs, sweep.spec)
        state = SweepState(event.data["state"])
        self._client.log_batch(runs.parent, tags=_state_tags(state, event.data["reason"]))
        if state.final:
            pictures = self._settings.pictures(sweep.id)
            if pictures.is_dir():
                self._client.log_artifacts(runs.parent, str(pictures), "pictures")
            self._client.set_terminated(runs.parent, _RUN_STATUS[state], milliseconds(event.at))
            mlflow_runs.delete_spare(self._client, sweep)  # that were made since the last look
        elif state is SweepState.QUEUED and event.number > 1:  # it goes on after its end
            self._client.update_run(runs.parent, "RUNNING")

    def _show_spec(self, runs: Runs, written: Mapping[str, Any]) -> None:
        """MLflow takes no other value of a parameter: what an extension changed is a tag of that name beside it."""
        spec = SweepSpec.from_dict(written)
        searched = {f"space.{name}": parameter.to_dict() for name, parameter in spec.space.items()}
        parts = {part: getattr(spec, part).to_dict() for part in ("search", "stop", "resources")}
        settings = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        params = _params({**spec.fixed, **searched, **settings})
        has = self._client.get_run(runs.parent).data
        new = {name: value for name, value in params.items() if name not in has.params}
        changed = {
            f"sweepserve.{name}": value
            for name, value in params.items()
            if has.params.get(name, value) != value or f"sweepserve.{name}" in has.tags
        }
        data = spec.trial(spec.space.corners()[0]).data
        self._describe(runs.parent, new, data, [RunTag(name, value[:TAG_LENGTH]) for name, value in changed.items()])
        self._client.log_dict(runs.parent, dict(written), "spec.json")

    def _show_trial(self, sweep: Sweep, runs: Runs, event: Event, metrics: Sequence[Metric]) -> None:
        """In as few calls as may be: MLflow works for each on the cores that the trials have.

        Args:
            sweep: the trial's.
            runs: those of the sweep.
            event: of the kind `trial`.
            metrics: what the trial measured before, and MLflow lacks.
        """
        trial, state = event.data, TrialState(event.data["state"])
        repeat = trial.get("repeat", 0)
        first = str(trial["number"] - repeat)
        made = trial["id"] not in runs.trials
        if made:
            run = self._client.create_run(
                runs.experiment,
                start_time=milliseconds(datetime.fromisoformat(trial["created_at"])),
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
        run_id, tags = runs.trials[trial["id"]], _state_tags(state, trial["reason"])
        if not state.final:
            self._log(runs, trial["id"], metrics)
            spec = SweepSpec.from_dict(sweep.spec)
            exploits = trial.get("exploits")
            point = exploits[0]["before"] if exploits else trial["point"]  # MLflow takes no other value of a parameter
            config: TrialConfig | None = None
            with suppress(ConfigError):  # else it fails at once, without a seed and data
                config = spec.trial(point, repeat)
            repeated = {"train.seed": config.train.seed, "repeat": repeat} if config and spec.search.repeats > 1 else {}
            self._describe(run_id, _params({**spec.fixed, **point, **repeated}), config.data if config else None, tags)
            if state is TrialState.RUNNING and not made:  # it goes on after its end
                self._client.update_run(run_id, "RUNNING")
            return
        values: list[Metric] = []
        if state is TrialState.COMPLETED:  # the value by which trials are compared: of the weights that were kept
            at, names = milliseconds(event.at), _objectives(sweep)
            values = [
                Metric(name, number, at, trial["step"])
                for name, number in zip(names, [trial["values"][0], *trial["values"]], strict=False)
            ]
        self._log(runs, trial["id"], [*metrics, *values], tags)
        if values and sweep.spec["search"].get("repeats", 1) > 1:
            self._show_point(sweep, runs, first, values[0])
        self._client.set_terminated(run_id, _RUN_STATUS[state], milliseconds(event.at))

    def _show_exploit(self, runs: Runs, exploit: Mapping[str, Any]) -> None:
        """As a tag; what it made of the settings are metrics."""
        said = ", ".join(f"{name} = {_text(value)}" for name, value in exploit["point"].items())
        if exploit["trial_id"] in runs.trials:
            tag = f"sweepserve.exploit.{exploit['step']:06}"
            text = f"goes on from trial {exploit['source']} with {said}"
            self._client.set_tag(runs.trials[exploit["trial_id"]], tag, text[:TAG_LENGTH])

    def _show_point(self, sweep: Sweep, runs: Runs, first: str, newest: Metric) -> None:
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

    def _describe(
        self, run_id: str, params: Mapping[str, str], data: DatasetConfig | None, tags: Sequence[RunTag]
    ) -> None:
        self._client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()], tags=tags)
        if data is None:
            return
        source = json.dumps(data.to_dict())
        dataset = Dataset(name=data.name, digest=data.digest, source_type="sweepserve", source=source)
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _state_tags(state: SweepState | TrialState, reason: str) -> list[RunTag]:
    return [RunTag("sweepserve.state", state.value), RunTag("sweepserve.reason", reason[:TAG_LENGTH])]


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    """As MLflow takes them."""
    return {name: _text(value)[:PARAM_LENGTH] for name, value in values.items()}


def _settings(point: Mapping[str, Any], step: int, at: datetime) -> list[Metric]:
    """The numbers among settings, from a step on."""
    numbers = {name: one for name, one in point.items() if isinstance(one, int | float) and not isinstance(one, bool)}
    return [Metric(f"settings/{name}", one, milliseconds(at), step) for name, one in numbers.items()]


def _objectives(sweep: Sweep) -> list[str]:
    """What a trial's first value is called in MLflow; with several, then what each of them is."""
    several = sweep.spec["objectives"] if len(sweep.spec["objectives"]) > 1 else []
    return ["objective", *(f"objective/{one['metric']}" for one in several)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=dict)
