"""MLflow's client as we use it, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter

from service.adapters.mlflow_connection import HABITS
from service.errors import Unavailable
from service.settings import Settings
from tests.service.mlflow_lab import Lab


@pytest.fixture(name="away")
def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name a server that is not there, in a process whose own environment stays as it is."""
    for variable, value in HABITS.items():
        monkeypatch.setenv(variable.name, str(value))
    return Settings(home=tmp_path, mlflow_url="http://127.0.0.1:9")


def test_mlflow_away_is_unavailable(away: Settings) -> None:
    """Nobody listens: the tracker says so instead of waiting for minutes, and there is no page."""
    lab = Lab(away, "away")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        lab.show()
    assert lab.tracker.url(lab.store.sweep(lab.id)) is None


def test_answers_may_take_half_a_minute_and_no_request_is_repeated(
    away: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow's client asks `requests` for it."""
    asked = []

    def send(adapter: HTTPAdapter, request: object, *, timeout: float, **_: object) -> None:
        asked.append((timeout >= 60, adapter.max_retries.total))
        raise requests.ConnectionError

    monkeypatch.setattr(HTTPAdapter, "send", send)
    with pytest.raises(Unavailable):
        Lab(away, "patient").show()
    assert asked == [(True, 0)]
