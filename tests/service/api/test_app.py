"""The app as a whole: its health, its background threads, its limits, its description."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.adapters.manual_clock import ManualClock
from service.adapters.sql_store import SqlStore
from service.api.background import Loop
from service.api.look import Look
from service.api.openapi import FAILURE
from service.errors import Unavailable
from service.spec import SweepSpec

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}}


def test_a_process_that_answers_is_healthy(service: Any) -> None:
    """Whatever it depends on."""
    service.launcher.down = True
    assert service.http.get("/healthz").json() == {"status": "ok"}


def test_first_requests_change_nothing_that_all_threads_share(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's warning filters are such a thing, and making a route's validators changes them."""

    def change(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the filters are changed while requests are answered")

    with monkeypatch.context() as patch:
        patch.setattr(warnings, "catch_warnings", change)
        posted = service.http.post("/v1/sweeps", json=SPEC)
        listed = [service.http.get(path).status_code for path in ("/v1/sweeps", "/v1/models", "/v1/families")]
    assert (posted.status_code, listed) == (202, [200] * 3)


def test_readiness_says_what_is_missing(service: Any, serve: Callable[..., str]) -> None:
    """200 when all is there; 503 with the reason by part when it is not."""
    url = serve(service.app)
    answer = httpx.get(f"{url}/readyz")
    parts = {"store": "ok", "cluster": "ok", "leader": "ok", "reconciler": "ok", "tracker": "ok"}
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "parts": parts})
    service.launcher.down = True
    service.clock.advance(2)
    answer = httpx.get(f"{url}/readyz")
    parts["cluster"] = "the cluster does not answer"
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "parts": parts})


def test_where_keys_are_needed_strangers_are_not_told_what_is_the_matter(make_service: Callable[..., Any]) -> None:
    """The words of what does not answer name hosts, users and files."""
    service = make_service(require_keys=True)
    service.launcher.down = True
    parts = service.http.get("/readyz").json()["parts"]
    assert (parts["store"], parts["cluster"]) == ("ok", "away")


def test_a_cluster_that_hangs_keeps_no_other_request_waiting(
    service: Any, portal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask whether the service is ready, one look at the cluster is under way."""
    looks: list[threading.Thread] = []
    looking, answered = threading.Event(), threading.Event()

    def hang() -> dict[str, float]:
        looks.append(threading.current_thread())
        looking.set()
        assert answered.wait(30)
        return {}

    monkeypatch.setattr(service.launcher, "resources", hang)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://127.0.0.1") as http:
            return (await http.get("/readyz")).status_code

    waiting = [portal.start_task_soon(ask) for _ in range(100)]
    try:
        assert looking.wait(10)
        assert service.http.get("/v1/sweeps").status_code == 200
        assert service.http.get("/healthz").status_code == 200
        assert len(looks) == 1
    finally:
        answered.set()
        assert {one.result(10) for one in waiting} == {503}  # its background threads do not run
    assert len(looks) == 1


def test_what_was_seen_is_good_for_two_seconds() -> None:
    """Then it is looked at again, also where the clock has jumped back; what does not answer in time is in trouble."""
    clock, seen, answered = ManualClock(), iter(range(9)), threading.Event()

    def ask() -> None:
        if number := next(seen):
            raise Unavailable(f"{number}")

    async def look() -> None:
        part = Look("part", ask, clock)
        assert [await part.trouble() for _ in range(2)] == ["", ""]
        clock.advance(1.9)
        assert await part.trouble() == ""
        clock.advance(0.1)
        assert [await part.trouble() for _ in range(2)] == ["1", "1"]
        clock.advance(-3600)
        assert await part.trouble() == "2"
        hung = Look("part", lambda: answered.wait(30), clock, patience=0.01)
        assert await hung.trouble() == "no answer within 0.01 s"

    try:
        anyio.run(look)
    finally:
        answered.set()


def test_an_app_whose_threads_do_not_run_is_not_ready(service: Any) -> None:
    """Sweeps would be taken and never launched."""
    answer = service.http.get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["reconciler"]) == (503, "its thread has ended")


def test_while_it_is_up_sweeps_are_launched_and_tracked(service: Any, serve: Callable[..., str]) -> None:
    """The background threads do what the core's own tests say they should, without being asked."""
    url = serve(service.app)
    sweep = httpx.post(f"{url}/v1/sweeps", json=SPEC, timeout=30).json()
    _wait_until(lambda: service.launcher.launches == [(sweep["id"], 1)])
    _wait_until(lambda: len(service.tracker.shown(sweep["id"])) > 0)


def test_a_loop_outlives_its_steps_failures() -> None:
    """It goes on after a failure, remembers it until a turn goes well, and ends when it is asked to."""
    turns: list[str] = []
    reached = threading.Semaphore(0)

    def step() -> None:
        turns.append(loop.failure)
        reached.release()
        if len(turns) <= 2:
            raise RuntimeError("not yet")

    loop = Loop("stepper", step, every=0)
    loop.start()
    for _ in range(4):
        assert reached.acquire(timeout=10)
    loop.end()
    assert loop.join(10)
    assert turns[:4] == ["", "RuntimeError: not yet", "RuntimeError: not yet", ""]
    assert not loop.alive


def test_a_loop_ends_while_it_waits() -> None:
    """Shutting down does not wait for the next turn."""
    reached = threading.Event()
    loop = Loop("waiter", reached.set, every=3600)
    loop.start()
    assert reached.wait(10)
    loop.end()
    assert loop.join(2)


def test_a_body_over_the_limit_is_refused_by_its_announced_length(make_service: Callable[..., Any]) -> None:
    """413 as a problem, with the limit; one byte less passes on."""
    service = make_service(max_body_bytes=100)
    answer = service.http.post("/v1/sweeps", content=b"x" * 101)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert answer.json()["detail"] == "need a body of at most 100 bytes (SWEEPSERVE_MAX_BODY_BYTES)"
    assert service.http.post("/v1/sweeps", json="x" * 98).status_code == 422


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_body_of_unannounced_length_is_counted_while_it_is_read(
    make_service: Callable[..., Any], serve: Callable[..., str], kind: str
) -> None:
    """A chunked body is refused as soon as it is over, long before it ends, by whatever reads it."""
    service = make_service(max_body_bytes=1000)
    service.model()
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b"--x\r\nContent-Disposition: form-data; name=images; filename=a\r\n\r\n"
        while sent < 10**9:
            sent += 100_000
            yield b"x" * 100_000

    url = serve(service.app)
    try:
        answer = httpx.post(f"{url}/v1/models/digits/predict", content=endless(), headers={"content-type": kind})
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    except httpx.WriteError:  # the server answered and hung up while we were still sending
        pass
    assert sent < 10**8
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_the_description_has_stable_names_and_the_real_errors(service: Any) -> None:
    """Clients can be generated: an operation is named by its function; every one may answer a problem."""
    described = service.http.get("/openapi.json").json()
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == {
        "submit_sweep", "clone_sweep", "validate_sweep",
        "list_sweeps", "get_sweep", "list_trials", "get_leaderboard", "list_measurements",
        "get_curves", "get_importance", "get_pareto",
        "list_events", "stop_sweep", "cancel_sweep", "pause_sweep", "resume_sweep", "extend_sweep", "retry_sweep",
        "delete_sweep", "get_logs", "list_models", "get_model", "predict", "list_families",
        "get_family", "list_datasets", "list_deeds", "get_metrics", "get_health", "get_readiness", "list_promotions",
        "promote", "roll_back", "get_server", "is_live", "is_ready", "get_model_metadata", "get_model_version_metadata",
        "is_model_ready", "is_model_version_ready", "infer", "infer_version",
    }  # fmt: skip
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    failure = {"application/json": {"schema": FAILURE}}
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation["responses"]["default"]["content"] == (failure if path.startswith("/v2") else problem)
    assert "HTTPValidationError" not in str(described)
    body = described["paths"]["/v1/sweeps"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("SweepSpec", "Study")]}
    assert described["components"]["schemas"]["SweepSpec"] == SweepSpec.json_schema()


def test_the_description_defines_all_that_it_refers_to(service: Any) -> None:
    """No dangling reference."""
    described = service.http.get("/openapi.json").json()
    text = str(described)
    referred = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(described["components"]["schemas"])


@pytest.fixture(name="on_sql")
def _on_sql(make_service: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    """The service over a database, which may refuse what a dictionary takes."""
    store = SqlStore(f"sqlite:///{tmp_path / 'sweeps.db'}")
    store.migrate()
    service = make_service(store)
    service.trial(service.running(), 0)
    yield service
    store.close()


def test_the_page_of_the_api_needs_no_other_host(service: Any) -> None:
    """What the page loads is served here, so that it opens where there is no internet."""
    page = service.http.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 2
    assert [service.http.get(one).status_code for one in loaded] == [200] * len(loaded)


@pytest.mark.parametrize("path", [
    "/v1/sweeps", "/v1/sweeps/{}", "/v1/sweeps/{}/trials", "/v1/sweeps/{}/leaderboard", "/v1/sweeps/{}/measurements",
    "/v1/sweeps/{}/events", "/v1/sweeps/{}/logs", "/v1/families/{}", "/v1/models/{}", "/v1/datasets",
])  # fmt: skip
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_question_is_a_500(on_sql: Any, path: str, data: st.DataObject) -> None:
    """Any text as a name and as any parameter: an answer, or a problem that says what is wrong with the question."""
    names = st.one_of(st.text(min_size=1, max_size=12), st.just(on_sql.store.sweeps()[0].id))
    name = quote(data.draw(names), safe="")
    keys = ["limit", "page_token", "state", "name", "after", "trial"]
    numbers = st.sampled_from([-1, 0, 1, 2**31, 2**53 + 1, 2**63, 2**70]).map(str)
    texts = st.one_of(numbers, st.text(max_size=6), st.just("running"))
    query = data.draw(st.dictionaries(st.sampled_from(keys), texts, max_size=3))
    answer = on_sql.http.get(path.format(name), params=query)
    assert answer.status_code in (200, 400, 404, 422)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"


def _wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)  # real threads: there is no clock of ours to move
