"""Sweeps over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.domain import SweepState
from service.port_values import Job

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}}


def test_a_submitted_sweep_is_queued_and_found_at_its_location(service: Any) -> None:
    """202 with the sweep and where to look for it; every default of the spec is filled in."""
    answer = service.http.post("/v1/sweeps", json=SPEC)
    assert answer.status_code == 202
    sweep = answer.json()
    assert (sweep["name"], sweep["state"], sweep["counts"], sweep["best"]) == ("digits", "queued", {}, None)
    assert sweep["spec"]["search"]["trials"] == 40
    assert answer.headers["location"] == f"/v1/sweeps/{sweep['id']}"
    assert service.http.get(answer.headers["location"]).json() == sweep
    assert service.store.sweep(sweep["id"]).state is SweepState.QUEUED


def test_a_bad_spec_is_answered_with_every_fault_and_where_it_is(service: Any) -> None:
    """One round trip mends a spec: 422 with a JSON pointer a fault, and nothing is queued."""
    spec = {**SPEC, "family": "narow_resnet", "search": {"trials": 0}, "spaces": {}}
    answer = service.http.post("/v1/sweeps", json=spec)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"/family", "/search/trials", "/spaces"} <= {error["pointer"] for error in problem["errors"]}
    assert "did you mean 'narrow_resnet'?" in str(problem["errors"])
    assert problem["detail"] == f"the spec has {len(problem['errors'])} faults"
    assert service.store.sweeps() == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"name: digits", "Expecting value"),
        (b'{"name": NaN}', "JSON has no NaN"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": "\\ud800"}', "surrogates not allowed"),
        (b'{"name": "\xff"}', "invalid start byte"),
        (b'{"name": ' + b"1" * 5000 + b"}", "digits"),
    ],
)
def test_a_body_that_is_not_json_is_a_fault_of_the_whole_body(service: Any, body: bytes, reason: str) -> None:
    """Whatever is sent, the answer says what is wrong with it."""
    answer = service.http.post("/v1/sweeps", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == ""
    assert reason in error["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/yaml", None])
def test_a_body_that_does_not_say_it_is_json_is_refused(service: Any, kind: str | None) -> None:
    """A page of another site cannot make a visitor's browser submit sweeps; who uses curl is told the option."""
    body = json.dumps(SPEC).encode()
    answer = service.http.post("/v1/sweeps", content=body, headers={"content-type": kind} if kind else {})
    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/problem+json")
    assert "-H 'Content-Type: application/json'" in answer.json()["detail"]
    for kind in ("application/json; charset=utf-8", "application/vnd.sweep+json"):
        assert service.http.post("/v1/sweeps", content=body, headers={"content-type": kind}).status_code == 202


@pytest.mark.parametrize("path", ["/v1/sweeps/a%00b", "/v1/sweeps?name=a%00b", "/v1/models/%00/predict"])
def test_nul_is_in_no_name(service: Any, path: str) -> None:
    """A database would refuse even the question."""
    answer = service.http.get(path) if "predict" not in path else service.http.post(path, json={"images": ["AA=="]})
    assert (answer.status_code, answer.json()["detail"]) == (400, "need names without the character NUL")


@pytest.mark.parametrize("document", [None, [], "digits", 7, {"name": {}}, {"space": {"a": [[]]}}])
def test_json_that_is_no_spec_is_answered_with_its_faults(service: Any, document: Any) -> None:
    """Any JSON document gets a list of faults, never a 500."""
    body = json.dumps(document).encode()
    answer = service.http.post("/v1/sweeps", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"]


def test_sweeps_are_listed_newest_first_in_pages(service: Any) -> None:
    """Following `next_page_token` shows every sweep once."""
    made = [service.sweep(f"sweep-{i}").id for i in range(5)]
    listed, token, pages = [], None, 0
    while pages == 0 or token:
        query = {"limit": 2, **({"page_token": token} if token else {})}
        page = service.http.get("/v1/sweeps", params=query).json()
        listed += [sweep["id"] for sweep in page["sweeps"]]
        token, pages = page["next_page_token"], pages + 1
    assert listed == made[::-1]
    assert pages == 3


def test_sweeps_are_filtered_by_state_and_name(service: Any) -> None:
    """A filter that is given many times takes any of its values."""
    queued, running, other = service.sweep("a"), service.running("a"), service.running("b")

    def listed(**query: Any) -> list[str]:
        return [sweep["id"] for sweep in service.http.get("/v1/sweeps", params=query).json()["sweeps"]]

    assert listed(state="running") == [other.id, running.id]
    assert listed(state=["running", "queued"], name="a") == [running.id, queued.id]
    assert listed(name="c") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": 0}, "/query/limit"),
        ({"limit": "all"}, "/query/limit"),
        ({"page_token": "nonsense"}, "/query/page_token"),
        ({"state": "sleeping"}, "/query/state/0"),
    ],
)
def test_a_bad_query_is_answered_like_a_bad_spec(service: Any, query: dict[str, Any], pointer: str) -> None:
    """The framework's own faults have the same form, and name the parameter."""
    answer = service.http.get("/v1/sweeps", params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_sweep_sums_up_its_trials_and_shows_the_best(service: Any) -> None:
    """Counts by state, the best completed trial, and the page in MLflow once there is one."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    best = service.trial(sweep, 1, value=0.75)
    service.trial(sweep, 2)
    service.tracker.track(service.store.sweep(sweep.id), service.store.events(sweep.id))
    shown = service.http.get(f"/v1/sweeps/{sweep.id}").json()
    assert shown["counts"] == {"completed": 2, "running": 1}
    assert (shown["best"]["id"], shown["best"]["values"]) == (best.id, [0.75])
    assert shown["mlflow_url"] == f"memory://{sweep.id}"
    assert "attempt" not in shown
    assert "checkpoint" not in shown["best"]


def test_trials_are_listed_by_number_and_ranked_by_value(service: Any) -> None:
    """The list has all trials in their order; the leaderboard only the completed ones, best first."""
    sweep = service.running()
    for number, value in enumerate([0.5, 0.75, None, 0.625]):
        service.trial(sweep, number, value=value)

    def numbers(path: str) -> list[int]:
        answer = service.http.get(f"/v1/sweeps/{sweep.id}/{path}").json()
        return [one["number"] for one in answer["points" if "points" in answer else "trials"]]

    assert numbers("trials") == [0, 1, 2, 3]
    assert numbers("trials?state=running") == [2]
    assert numbers("leaderboard") == [1, 3, 0]
    assert numbers("leaderboard?limit=2") == [1, 3]


def test_repeats_are_one_line_of_the_leaderboard(service: Any) -> None:
    """A point counts with the mean of its trials; their spread, their best and the trials themselves are there."""
    sweep = service.running(search={"trials": 2, "repeats": 3})
    for number, value in enumerate([0.5, 0.75, 1.0, 0.9, None, 0.7]):
        service.trial(sweep, number, value=value)
    first, second = service.http.get(f"/v1/sweeps/{sweep.id}/leaderboard").json()["points"]
    assert (first["number"], first["values"], first["mean"], first["best"]) == (3, [0.8], [0.8], [0.9])
    assert [(trial["number"], trial["repeat"]) for trial in first["trials"]] == [(3, 0), (5, 2)]
    assert (second["number"], second["values"], second["standard_deviation"]) == (0, [0.75], [0.25])


def test_measurements_that_json_cannot_say_are_texts(service: Any) -> None:
    """A diverged trial's NaN arrives as "NaN", in the list and in the events; the answers are legal JSON."""
    sweep = service.running()
    trial = service.trial(sweep, 0)
    (measured,) = service.http.get(f"/v1/sweeps/{sweep.id}/measurements").json()["measurements"]
    assert measured["metrics"] == {"validation/accuracy": "NaN"}
    (event,) = service.http.get(f"/v1/sweeps/{sweep.id}/events?after=3").json()["events"]
    assert event["data"] == {"trial_id": trial.id, "step": 1, "metrics": {"validation/accuracy": "NaN"}}


def test_measurements_of_one_trial_are_asked_for_by_its_id(service: Any) -> None:
    """Each trial's can be had alone; an unknown trial is a 404."""
    sweep = service.running()
    wanted = [service.trial(sweep, number, value=0.5) for number in range(2)][1]
    found = service.http.get(f"/v1/sweeps/{sweep.id}/measurements", params={"trial": wanted.id}).json()
    assert [one["trial_id"] for one in found["measurements"]] == [wanted.id]
    assert service.http.get(f"/v1/sweeps/{sweep.id}/measurements?trial=x").status_code == 404


def test_events_go_on_after_the_last_one_seen(service: Any) -> None:
    """Asking after the last known number gives each event exactly once."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    seen: list[tuple[int, str]] = []
    while page := service.http.get(f"/v1/sweeps/{sweep.id}/events", params={"after": len(seen), "limit": 2}).json()[
        "events"
    ]:
        seen += [(event["number"], event["kind"]) for event in page]
    assert seen == [(1, "sweep"), (2, "sweep"), (3, "trial"), (4, "measurement"), (5, "trial")]


def test_the_log_of_the_newest_driver_is_plain_text(service: Any) -> None:
    """Empty before there is a driver; then what it printed, whatever characters it has."""
    sweep = service.sweep()
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/logs")
    assert (answer.status_code, answer.text) == (200, "")
    service.store.count_attempt(sweep.id)
    service.launcher.set_job(sweep.id, 1, Job(state="running"), logs="épocha 1\n")
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/logs")
    assert (answer.text, answer.headers["content-type"]) == ("épocha 1\n", "text/plain; charset=utf-8")


def test_logs_outlive_the_cluster_and_the_driver(service: Any) -> None:
    """The files of all drivers in their order, without a question to the cluster once the newest has one."""
    sweep = service.sweep()
    for attempt in (1, 2, 3):
        service.store.count_attempt(sweep.id)
        service.launcher.set_job(sweep.id, attempt, Job(state="running"), logs=f"{attempt} to the cluster\n")
    for attempt in (1, 2):
        path = service.settings.driver_log(sweep.id, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{attempt} to its file\n".encode())
    url = f"/v1/sweeps/{sweep.id}/logs"
    assert service.http.get(url).text == "1 to its file\n2 to its file\n3 to the cluster\n"
    service.settings.driver_log(sweep.id, 3).write_bytes(b"\xff to its file\n")
    service.launcher.down = True
    assert service.http.get(url).text == "1 to its file\n2 to its file\n\ufffd to its file\n"


def test_of_a_long_log_there_is_the_newest_end(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whole lines, of each driver, below a line that says how much is left out; one long line is cut anywhere."""
    monkeypatch.setattr("service.api.driver_logs.NEWEST_BYTES", 12)
    sweep = service.sweep()
    printed = {1: "first\nsecond\nthird\n", 2: "whole\n", 3: "x" * 20}
    for attempt, text in printed.items():
        service.store.count_attempt(sweep.id)
        path = service.settings.driver_log(sweep.id, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    service.store.count_attempt(sweep.id)
    service.launcher.set_job(sweep.id, 4, Job(state="running"), logs="\u00e9poch 1\n\u00e9poch 2\n")
    assert service.http.get(f"/v1/sweeps/{sweep.id}/logs").text == (
        "(13 bytes before this are left out)\nthird\n"
        "whole\n"
        f"(8 bytes before this are left out)\n{'x' * 12}"
        "(9 bytes before this are left out)\n\u00e9poch 2\n"
    )


def test_a_cluster_that_is_down_is_a_503_that_may_be_tried_again(service: Any) -> None:
    """Only what needs the cluster fails, and says when to come back."""
    sweep = service.running()
    service.launcher.down = True
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/logs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert service.http.get(f"/v1/sweeps/{sweep.id}").status_code == 200
    assert service.http.post("/v1/sweeps", json=SPEC).status_code == 202


@pytest.mark.parametrize(
    "path", ["", "/trials", "/leaderboard", "/pareto", "/importance", "/curves", "/measurements", "/events", "/logs"]
)
def test_an_unknown_sweep_is_a_404_on_every_path(service: Any, path: str) -> None:
    """The answer names the id."""
    answer = service.http.get(f"/v1/sweeps/nonesuch{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "nonesuch" in answer.json()["detail"]
    assert service.http.post("/v1/sweeps/nonesuch/stop").status_code == 404
