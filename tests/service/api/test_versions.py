"""Answers that are polled: 304 as long as nothing that they show has changed."""

from __future__ import annotations

from typing import Any

import pytest

from service.domain import Measurement, SweepState, TrialState
from tests.service.api.test_pages import SEVERAL

PATHS = ["/v1/sweeps", "", "/trials", "/leaderboard", "/measurements", "/curves"]


def test_what_has_not_changed_is_not_sent_again(service: Any) -> None:
    """No body; and everything anew as soon as something has happened."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    urls = [path if path.startswith("/v1") else f"/v1/sweeps/{sweep.id}{path}" for path in PATHS]
    tags = {url: service.http.get(url).headers["etag"] for url in urls}
    for url, tag in tags.items():
        for known in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
            answer = service.http.get(url, headers={"if-none-match": known})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    service.trial(sweep, 1, value=0.75)
    for url, tag in tags.items():
        answer = service.http.get(url, headers={"if-none-match": tag})
        assert answer.status_code == 200
        assert answer.headers["etag"] != tag


def test_a_leaderboard_changes_when_a_trial_completes(service: Any) -> None:
    """Not with each measurement of those that run."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    url = f"/v1/sweeps/{sweep.id}/leaderboard"
    known = {"if-none-match": service.http.get(url).headers["etag"]}
    service.trial(sweep, 1)
    assert service.http.get(url, headers=known).status_code == 304
    service.trial(sweep, 2, value=0.6)
    assert service.http.get(url, headers=known).status_code == 200


@pytest.mark.parametrize(
    ("objectives", "paths"), [(SEVERAL[:1], ["trials", "leaderboard"]), (SEVERAL, ["trials", "leaderboard", "pareto"])]
)
def test_what_shows_a_trial_changes_when_its_checkpoint_goes(service: Any, objectives: Any, paths: list[str]) -> None:
    """Which is no event of the sweep."""
    sweep = service.running(objectives=objectives)
    trial, at = service.trial(sweep, 0), service.clock.now()
    service.store.add_measurement(Measurement(trial_id=trial.id, step=2, at=at, metrics={}), checkpoint="/there")
    service.store.move_trial(trial.id, TrialState.COMPLETED, at=at, values=(0.5, 10.0)[: len(objectives)])
    answers = {path: service.http.get(f"/v1/sweeps/{sweep.id}/{path}") for path in paths}
    service.store.forget_checkpoint(trial.id)
    for path, before in answers.items():
        known = {"if-none-match": before.headers["etag"]}
        after = service.http.get(f"/v1/sweeps/{sweep.id}/{path}", headers=known)
        assert after.status_code == 200
        assert after.text == before.text.replace('"kept"', '"removed"') != before.text


@pytest.mark.parametrize("change", ["tracked", "queue"])
def test_a_sweep_also_changes_by_what_is_no_event_of_its_own(make_service: Any, change: str) -> None:
    """Its page in MLflow, or what it waits for."""
    service = make_service(max_running_sweeps=1)
    first, second = service.running(), service.sweep()
    url = f"/v1/sweeps/{second.id}"
    before = service.http.get(url)
    if change == "tracked":
        service.tracker.track(second, service.store.events(second.id))
    else:
        service.store.move_sweep(first.id, SweepState.COMPLETED, at=service.clock.now())
    after = service.http.get(url, headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json() != before.json()


def test_models_change_with_their_champion(service: Any) -> None:
    """The list and the model."""
    service.model()
    for url in ("/v1/models", "/v1/models/digits"):
        tag = service.http.get(url).headers["etag"]
        assert service.http.get(url, headers={"if-none-match": tag}).status_code == 304
        service.model()
        assert service.http.get(url, headers={"if-none-match": tag}).status_code == 200
