"""What a sweep found: learning curves, importances, the Pareto front."""

from __future__ import annotations

from typing import Any

import pytest

from service.domain import Measurement, TrialState
from tests.service.api.test_pages import SEVERAL, complete

SPACE = {
    "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1},
    "train.batch_size": {"kind": "choice", "values": [16, 32]},
}


def reported(service: Any, trial: Any, step: int, **metrics: float) -> None:
    """The trial reports something more."""
    named = {f"train/{name}": value for name, value in metrics.items()}
    service.store.add_measurement(Measurement(trial_id=trial.id, step=step, at=service.clock.now(), metrics=named))


def test_curves_are_columns(service: Any) -> None:
    """By number, of the first objective unless others are asked for; null where a metric was not reported."""
    sweep = service.running()
    first, second = service.trial(sweep, 0, value=0.5), service.trial(sweep, 1)
    reported(service, first, 2, loss=0.25)
    url = f"/v1/sweeps/{sweep.id}/curves"
    answer = service.http.get(url).json()
    assert answer["metrics"] == ["validation/accuracy"]
    assert answer["curves"] == [
        {
            "trial_id": first.id,
            "number": 0,
            "state": "completed",
            "steps": [1, 2],
            "values": {"validation/accuracy": [0.5, None]},
        },
        {
            "trial_id": second.id,
            "number": 1,
            "state": "running",
            "steps": [1],
            "values": {"validation/accuracy": ["NaN"]},
        },
    ]
    both = service.http.get(url, params={"metric": ["train/loss", "validation/accuracy"], "trial": first.id}).json()
    assert both["metrics"] == ["train/loss", "validation/accuracy"]
    assert [curve["values"]["train/loss"] for curve in both["curves"]] == [[None, 0.25]]
    assert [curve["number"] for curve in service.http.get(url, params={"state": "running"}).json()["curves"]] == [1]
    assert service.http.get(f"/v1/sweeps/{service.running().id}/curves").json()["curves"] == []


def test_curves_are_thinned_and_read_in_pages(service: Any) -> None:
    """At most so many points of each, the last one among them."""
    sweep = service.running()
    for number in range(3):
        trial = service.trial(sweep, number)
        for step in range(2, 11):
            reported(service, trial, step, loss=step / 10)
    url = f"/v1/sweeps/{sweep.id}/curves"
    query: dict[str, Any] = {"metric": "train/loss", "points": 4, "limit": 2}
    page = service.http.get(url, params=query).json()
    last = service.http.get(url, params={**query, "page_token": page["next_page_token"]}).json()
    assert [curve["number"] for curve in page["curves"] + last["curves"]] == [0, 1, 2]
    assert last["curves"][0]["steps"] == [1, 4, 7, 10]
    assert last["curves"][0]["values"]["train/loss"] == [None, 0.4, 0.7, 1.0]
    assert last["next_page_token"] is None


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ({"metric": "validation/acuracy"}, 422, "did you mean 'validation/accuracy'?"),
        ({"points": 0}, 422, "greater than or equal to 1"),
        ({"trial": "none"}, 404, "there is no trial 'none'"),
        ({"state": "sleeping"}, 422, "'running'"),
    ],
)
def test_curves_that_cannot_be_are_refused(service: Any, query: dict[str, Any], status: int, detail: str) -> None:
    """The answer names the rule and the value."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/curves", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]


def test_what_is_not_measured_yet_is_said(service: Any) -> None:
    """A sweep that has only just begun: its metrics are answered as unmeasured; those of a family are not known yet."""
    sweep = service.running()
    url = f"/v1/sweeps/{sweep.id}/curves"
    asked = ["validation/accuracy", "test/loss", "seconds", "train/loss", "angle/largest"]
    answer = service.http.get(url, params={"metric": asked}).json()
    assert (answer["unmeasured"], answer["curves"]) == (asked, [])
    service.trial(sweep, 0)
    assert service.http.get(url).json()["unmeasured"] == []


@pytest.mark.parametrize(
    ("metric", "nearest"),
    [
        ("validation/acuracy", "validation/accuracy"),
        ("test/los", "test/loss"),
        ("secnds", "seconds"),
        ("validation/dice", None),
    ],
)
def test_what_will_never_be_measured_is_refused_before_anything_is(
    service: Any, metric: str, nearest: str | None
) -> None:
    """The measures of the sweep's task are known, and so is what every training reports."""
    sweep = service.running()
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/curves", params={"metric": ["train/loss", metric]})
    assert answer.status_code == 422
    assert f"no trial of sweep {sweep.id} will report '{metric}'" in answer.json()["detail"]
    assert nearest is None or f"did you mean '{nearest}'?" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "/query/metric/1"


def test_a_trial_of_another_sweep_has_no_curve_here(service: Any) -> None:
    """As one that is not there."""
    other = service.trial(service.running(), 0)
    sweep = service.running()
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/curves", params={"trial": other.id})
    assert (answer.status_code, other.id in answer.json()["detail"]) == (404, True)


def searched(service: Any, count: int, *, objectives: Any = None, alike: bool = False) -> Any:
    """A sweep whose learning rate alone makes the first value, and whose batch size makes the second."""
    sweep = service.running(space=SPACE, search={"trials": 40}, **({"objectives": objectives} if objectives else {}))
    for number in range(count):
        trial_id = f"{sweep.id}-{number:04}"
        point = {"train.learning_rate": 0.001 * (1 + number * 7 % 13), "train.batch_size": 16 + 16 * (number % 2)}
        first, second = (0.5 if alike else 1 - point["train.learning_rate"]), float(point["train.batch_size"])
        new = type(service.trial(service.running("other"), 0))(
            id=trial_id, sweep_id=sweep.id, number=number, point=point, created_at=service.clock.now()
        )
        service.store.add_trial(new)
        values = (first, second) if objectives else (first,)
        service.store.move_trial(trial_id, TrialState.COMPLETED, at=service.clock.now(), values=values)
    return sweep


def test_importance_names_what_matters_and_how_much_it_saw(service: Any) -> None:
    """Of the first objective unless another one is asked for."""
    sweep = searched(service, 26, objectives=SEVERAL)
    url = f"/v1/sweeps/{sweep.id}/importance"
    first = service.http.get(url).json()
    assert (first["objective"], first["points"], first["trials"]) == ("validation/accuracy", 26, 26)
    assert next(iter(first["importances"])) == "train.learning_rate"
    assert sum(first["importances"].values()) == pytest.approx(1)
    second = service.http.get(url, params={"objective": "model/parameters"}).json()
    assert next(iter(second["importances"])) == "train.batch_size"
    refused = service.http.get(url, params={"objective": "train/loss"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/objective")
    assert "need an objective of the sweep, validation/accuracy, model/parameters; got 'train/loss'" in refused.text


@pytest.mark.parametrize(
    ("count", "alike", "detail"),
    [
        (7, False, "need 8 completed points to tell what matters, sweep {id} has 7"),
        (9, True, "need points that differ in validation/accuracy, all 9 have 0.5"),
    ],
)
def test_importance_that_cannot_be_told_is_a_409(service: Any, count: int, alike: bool, detail: str) -> None:
    """It may be told later; the answer says what is missing."""
    sweep = searched(service, count, alike=alike)
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/importance")
    assert (answer.status_code, answer.json()["detail"]) == (409, detail.format(id=sweep.id))


def test_one_objective_has_no_pareto_front(service: Any) -> None:
    """422, with the one that there is; several have one, empty at first."""
    sweep = service.running()
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/pareto")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/path/sweep_id")
    assert f"need a sweep with several objectives, {sweep.id} has one: validation/accuracy" in answer.json()["detail"]
    several = service.running(objectives=SEVERAL)
    assert service.http.get(f"/v1/sweeps/{several.id}/pareto").json()["points"] == []
    complete(service, several, 0, 0.5, 10.0)
    assert len(service.http.get(f"/v1/sweeps/{several.id}/pareto").json()["points"]) == 1
