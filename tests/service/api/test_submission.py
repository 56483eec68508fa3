"""Sweeps are checked, submitted and cloned over HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from service.adapters.optuna_search import Search
from service.adapters.sql_store import SqlStore
from service.port_values import Claim
from service.spec import SweepSpec
from service.warm_start import known

SPEC = {
    "name": "digits",
    "family": "narrow_resnet",
    "data": {"name": "digits"},
    "fixed": {"train.max_epochs": 7},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    "search": {"trials": 3},
}
KERNELS = {
    "name": "kernels",
    "family": "contour_rnn",
    "data": {"name": "pathfinder"},
    "space": {"model.kernel": {"kind": "int", "low": 3, "high": 15}},
}
"""Both ends are legal, and every second point between them is none."""


def test_a_key_in_quotes_or_not_makes_one_sweep(service: Any) -> None:
    """Both forms are one key; another body with it is a 422, another path another key."""

    def post(key: str, path: str = "", **changes: Any) -> Any:
        return service.http.post(f"/v1/sweeps{path}", json={**SPEC, **changes}, headers={"Idempotency-Key": key})

    first, again = post('"a b"').json(), post("a b")
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    assert post("other").json()["id"] != first["id"]
    refused = post("a b", name="other")
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert "Idempotency-Key" in refused.json()["detail"]
    assert post("a b", f"/{first['id']}/clone").json()["id"] != first["id"]


@pytest.mark.parametrize("key", ["", '""', "x" * 256])
def test_a_key_that_is_none_is_a_fault_of_the_header(service: Any, key: str) -> None:
    """422 that names it, and nothing is made."""
    answer = service.http.post("/v1/sweeps", json=SPEC, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/header/Idempotency-Key"]
    assert service.store.sweeps() == []


class Meeting(SqlStore):
    """A store in which requests wait for each other before they claim their key, so that all find it free."""

    barrier: threading.Barrier

    def claimed(self, key: str, *, since: datetime) -> Claim | None:
        """Waits for the others."""
        found = super().claimed(key, since=since)
        self.barrier.wait(30)
        return found


def test_requests_that_race_with_one_key_make_one_sweep(make_service: Any, tmp_path: Path) -> None:
    """Two API processes over one database: every answer is the same sweep, or says that it is being made."""
    stores = [Meeting(f"sqlite:///{tmp_path}/store.db") for _ in range(2)]
    barrier = threading.Barrier(8)
    for store in stores:
        store.barrier = barrier
    stores[0].migrate()
    services = [make_service(store) for store in stores]

    def post(number: int) -> Any:
        http = services[number % 2].http
        return http.post("/v1/sweeps", json=SPEC, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, range(8)))
    assert not barrier.broken, "all were about to claim the key at once"
    made = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert [sweep.id for sweep in stores[0].sweeps()] == list(made)
    assert len(made) == 1
    for store in stores:
        store.close()


def test_a_preview_tells_what_would_run(service: Any) -> None:
    """The whole spec, how many trials, what they need and where, and the very points that would come first."""
    service.launcher.cluster = [{"CPU": 2}, {"CPU": 3, "GPU": 1}]
    answer = service.http.post("/v1/sweeps:validate", json=SPEC)
    assert answer.status_code == 200
    preview = answer.json()
    assert (preview["trials"], preview["at_once"]) == (3, 5)
    assert preview["nodes"] == [{"CPU": 2, "GPU": 0}, {"CPU": 3, "GPU": 1}]
    assert preview["spec"]["stop"]["pruner"] == "asha"
    assert [first["number"] for first in preview["first"]] == [0, 1, 2]
    assert {first["steps"] for first in preview["first"]} == {7}
    assert all(1e-4 <= first["point"]["train.learning_rate"] <= 1e-2 for first in preview["first"])
    assert preview["first"] == service.http.post("/v1/sweeps:validate", json=SPEC).json()["first"]
    assert service.store.sweeps() == []


def test_a_preview_knows_what_a_sweep_starts_from_and_what_it_may_take(service: Any) -> None:
    """The first points are those that a driver would try, which knows the earlier sweep."""
    earlier = service.running()
    for number in range(10):
        service.trial(earlier, number, value=number / 10)
    service.launcher.cluster = [{"CPU": 8}]
    search = {**SPEC["search"], "warm_start": [earlier.id]}
    preview = service.http.post(
        "/v1/sweeps:validate", json={**SPEC, "search": search, "resources": {"max_concurrent": 2}}
    ).json()
    spec = SweepSpec.from_dict(preview["spec"])
    driver = Search(spec, known=known(spec, service.store))
    assert [(one["number"], one["point"]) for one in preview["first"]] == [driver.ask() for _ in range(3)]
    assert preview["first"] != service.http.post("/v1/sweeps:validate", json=SPEC).json()["first"]
    assert preview["at_once"] == 2


def test_a_preview_has_the_faults_of_a_submission(service: Any) -> None:
    """422 with pointers, also where no node could hold a trial."""
    for document, pointer in [
        ({**SPEC, "family": "none"}, "/family"),
        ({**SPEC, "resources": {"gpus": 1}}, "/resources"),
        ({"study": "none"}, "/study"),
        (KERNELS, "/space/model.kernel"),
    ]:
        for path in ("/v1/sweeps:validate", "/v1/sweeps"):
            answer = service.http.post(path, json=document)
            assert answer.status_code == 422
            assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_preview_tells_of_first_points_that_are_illegal(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that no look at the space has found."""
    monkeypatch.setattr("service.spec.LOOKS", 0)
    answer = service.http.post("/v1/sweeps:validate", json=KERNELS)
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/space/model.kernel"}


def test_a_preview_does_without_the_cluster(service: Any) -> None:
    """It says that nothing is known of it."""
    service.launcher.down = True
    preview = service.http.post("/v1/sweeps:validate", json={"study": "quickstart"}).json()
    assert (preview["nodes"], preview["at_once"], preview["trials"]) == (None, None, 16)


def test_a_sweep_is_cloned_with_or_without_changes(service: Any) -> None:
    """202 at its own location; a sweep that is not there is a 404."""
    sweep = service.sweep()
    same = service.http.post(f"/v1/sweeps/{sweep.id}/clone")
    assert (same.status_code, same.json()["spec"]) == (202, sweep.spec)
    assert same.headers["location"] == f"/v1/sweeps/{same.json()['id']}"
    other = service.http.post(f"/v1/sweeps/{sweep.id}/clone", json={"search": {"trials": 9}}).json()
    assert (other["spec"]["search"]["trials"], other["name"]) == (9, "digits")
    assert service.http.post("/v1/sweeps/nonesuch/clone").status_code == 404
    assert service.http.post(f"/v1/sweeps/{sweep.id}/clone", json=[1]).status_code == 422
