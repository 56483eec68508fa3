"""Where a sweep is in MLflow: its experiment and its runs, found again by their tags, made, or taken out of the bin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, ViewType

from service.domain import Sweep

_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}  # or its page opens on traces of language models


@dataclass(slots=True)
class Runs:
    """What MLflow has of a sweep."""

    experiment: str
    parent: str
    shown: int = 0
    """The number of the newest event shown."""
    trials: dict[str, str] = field(default_factory=dict)
    """Run ids by trial id."""
    binned: list[str] = field(default_factory=list)
    """Ids of the runs that somebody deleted."""


def ready(client: MlflowClient, sweep: Sweep, tags: Mapping[str, str]) -> Runs:
    """The sweep's runs, ready to be written to: made, or taken out of the bin, where need be."""
    experiment = _experiment(client, sweep.name)
    runs = find(client, sweep) or _made(client, sweep, experiment, tags)
    for run_id in runs.binned:
        client.restore_run(run_id)
    return runs


def find(client: MlflowClient, sweep: Sweep) -> Runs | None:
    """What MLflow has of the sweep."""
    experiment = client.get_experiment_by_name(sweep.name)
    if experiment is None:
        return None
    runs = Runs(experiment.experiment_id, "")
    token: str | None = None
    while token != "":
        page = client.search_runs(
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


def _made(client: MlflowClient, sweep: Sweep, experiment: str, tags: Mapping[str, str]) -> Runs:
    run = client.create_run(
        experiment,
        start_time=milliseconds(sweep.created_at),
        run_name=f"{sweep.name} {sweep.id}",
        tags=dict(tags),
    )
    return Runs(experiment, run.info.run_id)


def _experiment(client: MlflowClient, name: str) -> str:
    known: Experiment | None = client.get_experiment_by_name(name)
    if known is None:
        return str(client.create_experiment(name, tags=_EXPERIMENT))
    if known.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(known.experiment_id)
    return str(known.experiment_id)


def milliseconds(at: datetime) -> int:
    """As MLflow counts time."""
    return round(at.timestamp() * 1000)
