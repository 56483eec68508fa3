"""Requests are counted, timed and followed; the state of sweeps can be scraped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from service import logs, trace
from service.access import Scope, new_key
from service.adapters.memory_store import MemoryStore
from service.adapters.sql_store import SqlStore
from service.domain import TrialState
from service.reconciler import reconcile

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}, "resources": {"gpus": 0.25}}
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
Make = Callable[..., Any]


def scraped(service: Any) -> dict[tuple[str, ...], float]:
    """The samples of `/metrics`: by name and labels' values."""
    answer = service.http.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_requests_are_counted_by_route_and_status(make_service: Make) -> None:
    """A stranger's paths and methods make no series of their own; what is refused counts too."""
    service = make_service(allowed_hosts="127.0.0.1")
    for path in ("/v1/sweeps/absent", "/v1/sweeps/other", "/v1/sweeps", "/a", "/b"):
        service.http.get(path)
    service.http.request("BREW", "/v1/sweeps")
    service.http.get("/v1/sweeps", headers={"host": "evil.example"})
    found = scraped(service)
    counted = {name[1:]: value for name, value in found.items() if name[0] == "sweepserve_requests_total"}
    assert counted == {
        ("GET", "/v1/sweeps/{sweep_id}", "404"): 2,
        ("GET", "/v1/sweeps", "200"): 1,
        ("GET", "none", "404"): 2,
        ("other", "/v1/sweeps", "405"): 1,
        ("GET", "none", "421"): 1,
    }
    assert found["sweepserve_request_seconds_count", "GET", "/v1/sweeps/{sweep_id}"] == 2
    assert found["sweepserve_request_seconds_bucket", "+Inf", "GET", "/v1/sweeps"] == 1


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_state_of_sweeps_is_that_of_the_store(make_service: Make, tmp_path: Any, kind: str) -> None:
    """Sweeps and trials by state, what waits, what MLflow lacks, and the GPUs that running trials have."""
    store: Any = MemoryStore() if kind == "memory" else SqlStore(f"sqlite:///{tmp_path}/store.db")
    if kind == "sqlite":
        store.migrate()
    service = make_service(store)
    running = service.running()
    waiting = service.sweep()
    for number, value in enumerate((None, None, 0.9)):
        service.trial(running, number, value=value)
    tracked = store.sweep(running.id).last_event - 2
    store.set_tracked(running.id, tracked)
    service.clock.advance(90)
    found = scraped(service)
    states = {name[1]: value for name, value in found.items() if name[0] == "sweepserve_sweeps"}
    assert states == {"queued": 1, "running": 1, **dict.fromkeys(set(states) - {"queued", "running"}, 0)}
    trials = {name[1]: value for name, value in found.items() if name[0] == "sweepserve_trials"}
    assert trials == {"running": 2, "completed": 1, **dict.fromkeys(set(trials) - {"running", "completed"}, 0)}
    assert set(trials) == set(TrialState)
    assert found["sweepserve_queue_wait_seconds",] == 90
    assert found["sweepserve_tracker_backlog",] == 2 + store.sweep(waiting.id).last_event
    assert found["sweepserve_gpus_used",] == 2 * store.sweep(running.id).spec["resources"]["gpus"]
    assert (found["sweepserve_up", "store"], found["sweepserve_up", "cluster"]) == (1, 1)
    if kind == "sqlite":
        store.close()


def test_a_cluster_that_is_away_is_told_and_nothing_else_is_lost(service: Any) -> None:
    """Its gauge is left out."""
    service.launcher.down = True
    found = scraped(service)
    assert (found["sweepserve_up", "cluster"], found["sweepserve_up", "store"]) == (0, 1)
    assert ("sweepserve_gpus",) not in found


@pytest.mark.parametrize(("least", "short"), [("0", 0), ("100%", 1)])
def test_a_disk_that_is_short_is_told(make_service: Make, least: str, short: int) -> None:
    """In the metrics, and as what a running sweep waits for."""
    service = make_service(min_free_disk=least)
    found = scraped(service)
    assert (found["sweepserve_disk_short",], found["sweepserve_up", "disk"]) == (short, 1)
    assert (found["sweepserve_disk_free_bytes",] < found["sweepserve_disk_needed_bytes",]) == short
    waiting = service.http.get(f"/v1/sweeps/{service.running().id}").json()["waiting"]
    assert ("no trial begins: " in waiting) == short
    assert "no trial begins" not in service.http.get(f"/v1/sweeps/{service.sweep().id}").json()["waiting"]


def test_what_a_driver_says_of_waiting_is_told(make_service: Make) -> None:
    """Before what is known of the disk."""
    service = make_service(min_free_disk="100%")
    sweep = service.running()
    service.store.add_wait(sweep.id, reason="no node has room", at=service.clock.now())
    told = service.http.get(f"/v1/sweeps/{sweep.id}").json()
    assert (told["reason"], told["waiting"]) == ("no node has room", "no node has room")


def test_metrics_need_the_scope_read(make_service: Make) -> None:
    """Where keys are asked for at all."""
    service = make_service(require_keys=True)
    key, text = new_key("prometheus", [Scope.READ], at=service.clock.now())
    service.access.add_key(key)
    assert service.http.get("/metrics").status_code == 401
    assert service.http.get("/metrics", headers={"Authorization": f"Bearer {text}"}).status_code == 200


def test_a_trace_is_followed_from_the_request_to_the_driver(service: Any) -> None:
    """The answer has its id; the sweep keeps it, the audit too, and the cluster is told."""
    service.launcher.cluster = [{"CPU": 2, "GPU": 1}]
    answer = service.http.post("/v1/sweeps", json=SPEC, headers={"traceparent": GIVEN})
    sweep = service.store.sweep(answer.json()["id"])
    assert answer.headers["x-request-id"] == trace.trace_id(sweep.trace) == TRACE_ID
    assert service.access.deeds(limit=1)[0].trace_id == TRACE_ID
    reconcile(service.store, service.launcher, clock=service.clock, trials_folder=service.settings.trials)
    assert service.launcher.traces == {(sweep.id, 1): sweep.trace}


def test_a_request_without_a_trace_gets_one(service: Any) -> None:
    """Each its own, also where it is refused."""
    ids = [service.http.get(path).headers["x-request-id"] for path in ("/healthz", "/healthz", "/v1/absent")]
    assert len(set(ids)) == 3
    assert {len(one) for one in ids} == {32}


def test_requests_are_nobody_elses(make_service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library has set up OpenTelemetry in this process, FastAPI does not hand it what was asked."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    make_service().http.get("/v1/sweeps")
    assert not spans.get_finished_spans()


def test_what_is_logged_in_a_request_has_its_trace(make_service: Make, caplog: pytest.LogCaptureFixture) -> None:
    """So does the request's own line, which names no query and no body."""
    service = make_service(json_logs=True)
    lines: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(json.loads(logs.JsonLines().format(record)))  # type: ignore[method-assign]
    root = logging.getLogger("service")
    root.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "service"):
            service.app.add_api_route("/log", lambda: logging.getLogger("service.test").info("hello"))
            service.http.get("/log", params={"secret": "swordfish"}, headers={"traceparent": GIVEN})
    finally:
        root.removeHandler(handler)
    assert [(line["message"], line["trace_id"]) for line in lines] == [("hello", TRACE_ID), ("request", TRACE_ID)]
    assert (lines[1]["method"], lines[1]["path"], lines[1]["status"]) == ("GET", "/log", 200)
    assert "swordfish" not in json.dumps(lines)
