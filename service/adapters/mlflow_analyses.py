"""Analyses of trained models on the MLflow run of their trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow.exceptions import MlflowException

from service.adapters.mlflow_connection import connect
from service.errors import NotFound, Unavailable
from service.settings import Settings


def log_analysis(settings: Settings, trial_id: str, name: str, files: Sequence[Path]) -> str:
    """Puts files on the trial's run, as `analyses/<name>/`, and returns the run's page.

    Raises:
        NotFound: MLflow has no run of the trial.
        Unavailable: MLflow did not take the files.
    """
    client = connect(settings)
    try:
        experiments = [one.experiment_id for one in client.search_experiments()]
        found = client.search_runs(experiments, f"tags.`sweepserve.trial` = '{trial_id}'", max_results=1)
        if not found:
            raise NotFound(f"MLflow at {settings.tracking_url} has no run of trial {trial_id}")
        run = found[0].info
        for file in files:
            client.log_artifact(run.run_id, str(file), f"analyses/{name}")
    except (MlflowException, OSError) as error:
        raise Unavailable(f"MLflow at {settings.tracking_url} refused: {error}") from error
    return f"{settings.pages_url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
