"""Lists in pages: everything once, whatever comes and goes meanwhile."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from service.access import Deed
from service.domain import Measurement, TrialState

FEW = {"metric": "model/parameters", "mode": "min"}
SEVERAL = [{"metric": "validation/accuracy", "mode": "max"}, FEW]


def complete(service: Any, sweep: Any, number: int, *values: float) -> None:
    """A trial with these values."""
    trial = service.trial(sweep, number)
    service.store.move_trial(trial.id, TrialState.COMPLETED, at=service.clock.now(), values=values)


def pages(
    service: Any, url: str, key: str, *, limit: int = 2, between: Callable[[], object] = lambda: None, **filters: Any
) -> list[Any]:
    """The list, read page by page; something happens after the first one."""
    found: list[Any] = []
    query: dict[str, Any] = {**filters, "limit": limit}
    while True:
        answer = service.http.get(url, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page[key]) <= limit
        if not found:
            between()
        found += page[key]
        if page["next_page_token"] is None:
            return found
        query["page_token"] = page["next_page_token"]


def test_sweeps_go_on_though_the_last_one_seen_is_gone(service: Any) -> None:
    """A token names a place, not a sweep; new ones are for the next reading."""
    made = [service.sweep(f"sweep-{i}").id for i in range(5)]

    def change() -> None:
        service.store.delete_sweep(made[3])
        service.sweep("new")

    assert [sweep["id"] for sweep in pages(service, "/v1/sweeps", "sweeps", between=change)] == made[::-1]


def test_trials_and_what_they_reported_are_read_in_pages(service: Any) -> None:
    """By number, then by step; a trial that comes meanwhile is there at the end."""
    sweep = service.running()
    for number in range(3):
        trial = service.trial(sweep, number, value=0.5 if number else None)
        for step in (2, 3):
            measurement = Measurement(trial_id=trial.id, step=step, at=service.clock.now(), metrics={"a": 1.0})
            service.store.add_measurement(measurement)
    url = f"/v1/sweeps/{sweep.id}"
    listed = pages(service, f"{url}/measurements", "measurements")
    assert [(one["trial_id"][-1], one["step"]) for one in listed] == [(n, s) for n in "012" for s in (1, 2, 3)]
    trials = pages(service, f"{url}/trials", "trials", between=lambda: service.trial(sweep, 3))
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert [trial["number"] for trial in pages(service, f"{url}/trials", "trials", limit=1, state="completed")] == [
        1,
        2,
    ]


def test_a_leaderboard_is_read_in_pages_with_its_ranks(service: Any) -> None:
    """Equals share a rank across pages; one that does better meanwhile moves nothing."""
    sweep = service.running()
    for number, value in enumerate([0.5, 0.9, 0.5, 0.5, 0.1]):
        service.trial(sweep, number, value=value)
    board = pages(
        service,
        f"/v1/sweeps/{sweep.id}/leaderboard",
        "points",
        between=lambda: service.trial(sweep, 5, value=0.95),
    )
    assert [(point["front"], point["number"]) for point in board] == [(1, 1), (2, 0), (2, 2), (2, 3), (3, 4)]


def test_several_objectives_and_repeats_are_read_in_pages_too(service: Any) -> None:
    """By front, then by the first value."""
    sweep = service.running(objectives=SEVERAL, search={"trials": 9, "repeats": 2})
    for point, values in enumerate([(0.5, 10.0), (0.75, 30.0), (0.4, 20.0), (0.6, 20.0), (0.5, 10.0)]):
        for repeat in range(2):
            complete(service, sweep, 2 * point + repeat, *values)
    url = f"/v1/sweeps/{sweep.id}"
    board = pages(service, f"{url}/leaderboard", "points")
    assert [(point["front"], point["number"]) for point in board] == [(1, 2), (1, 6), (1, 0), (1, 8), (2, 4)]
    front = service.http.get(f"{url}/pareto").json()
    assert front["objectives"] == SEVERAL
    assert front["points"] == pages(service, f"{url}/pareto", "points", limit=1) == board[:4]
    complete(service, sweep, 10, 0.9, 5.0)
    assert [point["number"] for point in pages(service, f"{url}/pareto", "points")] == [10]


def test_models_their_versions_and_promotions_are_read_in_pages(service: Any) -> None:
    """Models by name, of a family where asked; versions and promotions newest first."""
    for name in ("c", "a", "b", "a", "a"):
        service.model(name)
    assert [model["name"] for model in pages(service, "/v1/models", "models")] == ["a", "b", "c"]
    assert [model["name"] for model in pages(service, "/v1/models", "models", family="narrow_resnet")] == [
        "a",
        "b",
        "c",
    ]
    assert service.http.get("/v1/models?family=pose_net").json() == {"models": [], "next_page_token": None}
    assert [one["version"] for one in pages(service, "/v1/models/a", "versions")] == [3, 2, 1]
    assert [one["number"] for one in pages(service, "/v1/models/a/promotions", "promotions")] == [3, 2, 1]


def test_the_audit_is_read_in_pages(service: Any) -> None:
    """Newest first; what is done meanwhile is for the next reading."""

    def record() -> None:
        service.access.record(Deed(at=service.clock.now(), actor="ada", action="stop_sweep", subject="/v1/sweeps/a"))

    for _ in range(5):
        record()
    assert [deed["number"] for deed in pages(service, "/v1/audit", "deeds", between=record)] == [5, 4, 3, 2, 1]


def forged(*values: object) -> str:
    """A token for another list than the one it is sent to."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "é",
        "====",
        forged(),
        forged(1, 2, 3, 4),
        forged(None),
        forged(True),
        forged(1.5),
        forged(10**30),
        "MQ==",
    ],
)
@pytest.mark.parametrize("path", ["", "/{id}/trials", "/{id}/leaderboard", "/{id}/measurements", "/{id}/curves"])
def test_a_token_of_another_list_is_a_fault(service: Any, path: str, token: str) -> None:
    """It names the parameter, the rule and the value."""
    url = "/v1/sweeps" + path.format(id=service.running().id)
    answer = service.http.get(url, params={"page_token": token})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/page_token")
    assert f"need the next_page_token of an earlier answer, got {token!r}" in answer.json()["detail"]
    odd = {"page_token": forged("0001-01-01T00:00:00+14:00", "a")}
    assert service.http.get("/v1/sweeps", params=odd).status_code == 422
