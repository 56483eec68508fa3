"""Models in MLflow's registry: versions that are the store's, and an alias for the champion."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from service.adapters.mlflow_package import package
from service.adapters.mlflow_runs import Runs
from service.domain import Sweep

logger = logging.getLogger(__name__)

CHAMPION = "champion"
PROMOTION = "sweepserve.promotion"
"""A model's tag: the number of the newest promotion that is shown."""


def show_model(client: MlflowClient, runs: Runs, version: Mapping[str, Any]) -> None:
    """Registers the version that a `model` event tells of, where MLflow lacks it, and makes it the champion."""
    name, trial_id = version["name"], version["trial_id"]
    registered = client.search_registered_models(f"name = '{name}'")
    if not registered:
        client.create_registered_model(name)
    known = {
        int(one.tags["sweepserve.version"]): one.version
        for one in client.search_model_versions(f"name = '{name}'")
        if "sweepserve.version" in one.tags
    }
    number = version["version"]
    if number not in known:
        saved = Path(version["path"])
        if not saved.is_dir() or trial_id not in runs.trials:
            logger.warning("version %d of %s is not shown: it is not at %s any more", number, name, saved)
            return
        known[number] = _register(client, runs, version, saved)
    # Sweeps of one name are shown one by one, so promotions may come here out of their order.
    promotion = version.get("promotion", number)
    if registered and int(registered[0].tags.get(PROMOTION, 0)) > promotion:
        return
    client.set_registered_model_alias(name, CHAMPION, known[number])
    client.set_registered_model_tag(name, PROMOTION, str(promotion))
    client.set_tag(runs.parent, "sweepserve.champion", trial_id)


def forget_models(client: MlflowClient, sweep: Sweep) -> None:
    """Takes the sweep's versions out of the registry, and puts the models that they are of into MLflow's bin."""
    sweeps = set()
    for version in client.search_model_versions(f"name = '{sweep.name}'"):
        sweeps.add(version.tags.get("sweepserve.sweep", sweep.id))
        if version.tags.get("sweepserve.sweep") == sweep.id:
            client.delete_model_version(sweep.name, version.version)
    if sweeps <= {sweep.id}:  # the next promotion is number 1 again
        for model in client.search_registered_models(f"name = '{sweep.name}'"):
            client.delete_registered_model_tag(model.name, PROMOTION)
    experiment = client.get_experiment_by_name(sweep.name)
    if experiment is not None:
        of_sweep = f"tags.`sweepserve.sweep` = '{sweep.id}'"
        while models := client.search_logged_models([experiment.experiment_id], of_sweep):  # a page of them
            for model in models:
                client.delete_logged_model(model.model_id)


def _register(client: MlflowClient, runs: Runs, version: Mapping[str, Any], saved: Path) -> str:
    name, trial_id = version["name"], version["trial_id"]
    tags = {
        "sweepserve.version": str(version["version"]),
        "sweepserve.sweep": version["sweep_id"],
        "sweepserve.trial": trial_id,
    }
    same = f"tags.`sweepserve.trial` = '{trial_id}'"
    for unfinished in client.search_logged_models([runs.experiment], same):
        client.delete_logged_model(unfinished.model_id)
    run_id = runs.trials[trial_id]
    logged = client.create_logged_model(runs.experiment, name, run_id, tags, model_type="sweepserve")
    with tempfile.TemporaryDirectory(prefix="sweepserve-model-") as scratch:
        folder = Path(scratch) / "model"
        package(saved, folder, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    registered = client.create_model_version(
        name, logged.artifact_location, run_id, tags, await_creation_for=0, model_id=logged.model_id
    )
    return str(registered.version)
