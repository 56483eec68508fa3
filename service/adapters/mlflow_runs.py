"""Where a sweep is in MLflow: its experiment and its runs, found again by their tags, made, or taken out of the bin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

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
    spare: list[str] = field(default_factory=list)
    """Ids of second runs of the sweep or of a trial: a slow MLflow made them when they were no longer waited for."""


class _Found(NamedTuple):
    """A run; of several of one thing the greatest is kept: the one that has been written to."""

    shown: int
    written: bool
    active: bool
    run_id: str


def ready(client: MlflowClient, sweep: Sweep, tags: Mapping[str, str]) -> Runs:
    """The sweep's runs, ready to be written to: made, or taken out of the bin, where need be."""
    experiment = _experiment(client, sweep.name)
    runs = find(client, sweep) or _made(client, sweep, experiment, tags)
    for run_id in runs.binned:
        client.restore_run(run_id)
    _delete(client, runs.spare)
    return runs


def delete_spare(client: MlflowClient, sweep: Sweep) -> None:
    """Leaves one run a trial, and one for the sweep."""
    runs = find(client, sweep)
    _delete(client, runs.spare if runs is not None else ())


def find(client: MlflowClient, sweep: Sweep) -> Runs | None:
    """What MLflow has of the sweep."""
    experiment = client.get_experiment_by_name(sweep.name)
    if experiment is None:
        return None
    found: dict[str, list[_Found]] = defaultdict(list)  # by trial; the sweep's own has none
    token: str | None = None
    while token != "":
        page = client.search_runs(
            [experiment.experiment_id], f"tags.`sweepserve.sweep` = '{sweep.id}'", ViewType.ALL, page_token=token
        )
        for run in page:
            tags, active = run.data.tags, run.info.lifecycle_stage == LifecycleStage.ACTIVE
            shown, written = int(tags.get("sweepserve.event", 0)), "sweepserve.state" in tags
            found[tags.get("sweepserve.trial", "")].append(_Found(shown, written, active, run.info.run_id))
        token = page.token or ""
    runs = Runs(experiment.experiment_id, "")
    for trial, several in found.items():
        *spare, kept = sorted(several)
        runs.spare += [one.run_id for one in spare if one.active]
        if not kept.active:
            runs.binned.append(kept.run_id)
        if trial:
            runs.trials[trial] = kept.run_id
        else:
            runs.parent, runs.shown = kept.run_id, kept.shown
    return runs if runs.parent else None


def _delete(client: MlflowClient, run_ids: Iterable[str]) -> None:
    for run_id in run_ids:
        client.delete_run(run_id)


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
