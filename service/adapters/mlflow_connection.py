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
    MLFLOW_HTTP_REQUEST_TIMEOUT: 120,  # seconds for an answer; a server that is not there refuses at once
    MLFLOW_HTTP_REQUEST_MAX_RETRIES: 0,  # what was not answered may have been done: whoever asks again looks first
    MLFLOW_DISABLE_TELEMETRY: True,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR: False,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: True,
}


def connect(settings: Settings) -> MlflowClient:
    """A client of the MLflow server of these settings.

    In this process slow answers are waited for, no request is sent twice (MLflow's client would repeat also those that
    make something), and its telemetry and prints are turned off, unless the environment says otherwise.
    """
    for variable, value in HABITS.items():
        if not variable.is_set():
            variable.set(value)
    set_telemetry_client()
    return MlflowClient(settings.tracking_url, settings.tracking_url)
