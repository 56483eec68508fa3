"""How MLflow is asked."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_DISABLE_TELEMETRY,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
)
from mlflow.telemetry import set_telemetry_client

from service.settings import Settings

HABITS = {
    MLFLOW_HTTP_REQUEST_TIMEOUT: 20,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES: 1,
    MLFLOW_DISABLE_TELEMETRY: True,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR: False,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: True,
}


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
