"""Keys, scopes, limits and the audit, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.access import Scope, new_key
from service.api.scopes import scopes_for
from service.api.token_buckets import MAX_BUCKETS, TokenBuckets
from service.client import Client, ClientError
from service.errors import Unavailable

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}}
Make = Callable[..., Any]


def key_for(service: Any, *scopes: Scope, **limits: int) -> dict[str, str]:
    """The header that shows a new key with these scopes."""
    key, text = new_key("ada", scopes, at=service.clock.now(), **limits)
    service.access.add_key(key)
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("settings", "required"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"require_keys": True}, True),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.168.0.2"}, True),
        ({"host": "lab.example", "require_keys": False}, True),
    ],
)
def test_beyond_loopback_nobody_gets_in_without_a_key(make_service: Make, settings: Any, required: bool) -> None:
    """On loopback only where the settings say so; beyond, whatever they say."""
    answer = make_service(**settings, allowed_hosts="127.0.0.1").http.get("/v1/sweeps")
    assert answer.status_code == (401 if required else 200)
    if required:
        assert answer.headers["www-authenticate"] == 'Bearer realm="sweepserve"'
        assert answer.headers["content-type"] == "application/problem+json"
        assert "SWEEPSERVE_API_KEY" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_the_description_need_no_key(make_service: Make, path: str) -> None:
    """Load balancers have none, and the description is public."""
    assert make_service(require_keys=True).http.get(path).status_code in (200, 503)


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer nonsense", "bearer sweepserve_abcd2345_" + "0" * 64, "Bearer \xff", "Basic YTpi"],
)
@pytest.mark.parametrize("path", ["/v1/sweeps", "/v2/models/digits"])
def test_a_bad_key_is_a_401(make_service: Make, header: str, path: str) -> None:
    """In the form that the path's protocol has for errors; another login than a key is none."""
    service = make_service(require_keys=True)
    answer = service.http.get(path, headers=[(b"Authorization", header.encode("latin-1"))])
    assert answer.status_code == 401
    if path.startswith("/v2"):
        assert set(answer.json()) == {"error"}
    else:
        assert answer.json()["status"] == 401


def test_a_bad_key_is_refused_also_where_none_is_needed(service: Any) -> None:
    """Who shows a key wants to be known by it."""
    assert service.http.get("/v1/sweeps", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    assert service.http.get("/v1/sweeps", headers={"Authorization": "Basic YTpi"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/sweeps", {Scope.READ}),
        ("GET", "/metrics", {Scope.READ}),
        ("GET", "/v1/anything/else", {Scope.READ}),
        ("GET", "/v1/models", {Scope.READ, Scope.PREDICT}),
        ("GET", "/v1/models/digits", {Scope.READ, Scope.PREDICT}),
        ("POST", "/v1/sweeps", {Scope.SUBMIT}),
        ("POST", "/v1/sweeps:validate", {Scope.READ, Scope.SUBMIT}),
        ("POST", "/v1/sweeps/abcd2345/stop", {Scope.SUBMIT}),
        ("DELETE", "/v1/sweeps/abcd2345", {Scope.SUBMIT}),
        ("POST", "/v1/models/digits/promote", {Scope.SUBMIT}),
        ("POST", "/v1/models/digits/predict", {Scope.PREDICT}),
        ("GET", "/v2", {Scope.PREDICT}),
        ("POST", "/v2/models/digits/infer", {Scope.PREDICT}),
        ("GET", "/v1/audit", {Scope.ADMIN}),
    ],
)
def test_each_scope_opens_what_it_is_for(make_service: Make, method: str, path: str, allowed: set[Scope]) -> None:
    """And nothing else (403, which says what is needed), but for `admin`, which opens all."""
    service = make_service(require_keys=True)
    for scope in Scope:
        answer = service.http.request(method, path, headers=key_for(service, scope))
        refused = scope not in allowed and scope is not Scope.ADMIN
        assert (answer.status_code == 403) == refused, (scope, answer.status_code)
        if refused:
            assert " or ".join(sorted(allowed)) in answer.text


def test_every_operation_has_a_scope_in_the_description(make_service: Make) -> None:
    """The document names the scopes that the guard asks for; without a key only what is open can be asked."""
    service = make_service(require_keys=True)
    document = service.http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scopes = scopes_for(method.upper(), path)
            assert operation.get("security") == (None if scopes is None else [{"key": sorted(scopes)}])
            status = service.http.request(method, path.replace("{", "").replace("}", "")).status_code
            assert (status == 401) == (scopes is not None), (method, path, status)


def test_a_revoked_key_is_good_for_some_seconds_at_most(make_service: Make) -> None:
    """The API looks again after five."""
    service = make_service(require_keys=True)
    headers = key_for(service, Scope.READ)
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 200
    service.access.revoke_key(service.access.list_keys()[0].id, at=service.clock.now())
    service.clock.advance(5)
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 401


def test_a_clock_that_jumps_back_does_not_keep_a_revoked_key_alive(make_service: Make) -> None:
    """What was read in the future is read again."""
    service = make_service(require_keys=True)
    headers = key_for(service, Scope.READ)
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 200
    service.access.revoke_key(service.access.list_keys()[0].id, at=service.clock.now())
    service.clock.advance(-3600)
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 401


def test_a_key_that_asks_too_often_waits(make_service: Make) -> None:
    """It may ask a minute's worth at once, then evenly; another key does not wait for it."""
    service = make_service(require_keys=True, rate_limit=6)
    ada, bob, fast = (key_for(service, Scope.READ, **limits) for limits in ({}, {}, {"rate": 1000}))

    def ask(headers: dict[str, str]) -> httpx.Response:
        return service.http.get("/v1/sweeps", headers=headers)

    assert [ask(ada).status_code for _ in range(7)] == [200] * 6 + [429]
    refusal = ask(ada)
    assert (refusal.headers["retry-after"], refusal.headers["content-type"]) == ("10", "application/problem+json")
    assert ask(bob).status_code == 200
    assert {ask(fast).status_code for _ in range(20)} == {200}
    service.clock.advance(int(refusal.headers["retry-after"]))
    assert [ask(ada).status_code for _ in range(2)] == [200, 429]


def test_trying_keys_out_is_limited_by_address(make_service: Make) -> None:
    """After sixty bad ones in a minute the database is not asked any more, and a key that is known still works."""
    service = make_service(require_keys=True)
    headers = key_for(service, Scope.READ)
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 200
    bad = {"Authorization": "Bearer sweepserve_abcd2345_0"}
    statuses = [service.http.get("/v1/sweeps", headers=bad).status_code for _ in range(61)]
    assert statuses == [401] * 60 + [429]
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 200


def test_bad_keys_do_not_lock_out_a_good_one_of_the_same_address(make_service: Make) -> None:
    """A proxy's address is that of all: a key that was good goes on through any number of bad ones, until revoked."""
    service = make_service(require_keys=True)
    good = key_for(service, Scope.READ)
    bad = {"Authorization": "Bearer sweepserve_abcd2345_0"}

    def ask(headers: dict[str, str]) -> int:
        return int(service.http.get("/v1/sweeps", headers=headers).status_code)

    assert ask(good) == 200
    for _ in range(120):
        ask(bad)
    for _ in range(20):
        service.clock.advance(1)
        assert [ask(bad) for _ in range(2)][-1] == 429
        assert ask(good) == 200
    service.access.revoke_key(service.access.list_keys()[0].id, at=service.clock.now())
    service.clock.advance(5)
    assert [ask(bad) for _ in range(6)][-1] == 429
    assert ask(good) == 401
    service.clock.advance(5)
    assert [ask(bad) for _ in range(6)][-1] == 429
    assert ask(good) == 429


def test_bodies_are_limited_by_key(make_service: Make) -> None:
    """A key's own limit takes the place of the settings'."""
    service = make_service(require_keys=True, max_body_bytes=100)
    small, large = key_for(service, Scope.SUBMIT), key_for(service, Scope.SUBMIT, max_body_bytes=10_000)
    body = {**SPEC, "name": "digits", "fixed": {"train.max_epochs": 3}, "search": {"trials": 2}, "space": {}}
    assert service.http.post("/v1/sweeps", json=body, headers=small).status_code == 413
    assert service.http.post("/v1/sweeps", json=body, headers=large).status_code != 413


def test_changes_are_kept_with_who_made_them(make_service: Make) -> None:
    """Submitting and stopping; not looking, not what was refused, not what had faults."""
    service = make_service(require_keys=True)
    ada, admin = key_for(service, Scope.SUBMIT, Scope.READ), key_for(service, Scope.ADMIN)
    location = service.http.post("/v1/sweeps", json=SPEC, headers=ada).headers["location"]
    service.clock.advance(60)
    assert service.http.post(f"{location}/stop", headers=ada).status_code == 202
    service.http.get(location, headers=ada)
    assert service.http.post("/v1/sweeps", json={}, headers=ada).status_code == 422
    assert service.http.post("/v1/sweeps:validate", json=SPEC, headers=ada).status_code == 200
    assert service.http.post("/v1/sweeps", json=SPEC).status_code == 401
    deeds = service.http.get("/v1/audit", headers=admin).json()["deeds"]
    key_id = service.access.list_keys()[0].id if service.access.list_keys()[0].name == "ada" else ""
    assert [(deed["action"], deed["subject"]) for deed in deeds] == [
        ("stop_sweep", f"{location}/stop"),
        ("submit_sweep", location),
    ]
    assert {deed["actor"].partition(" ")[2] for deed in deeds} == {"(ada)"}
    assert key_id
    assert deeds[0]["at"] > deeds[1]["at"]
    token = service.http.get("/v1/audit", params={"limit": 1}, headers=admin).json()["next_page_token"]
    page = service.http.get("/v1/audit", params={"page_token": token, "limit": 1}, headers=admin).json()["deeds"]
    assert [deed["number"] for deed in page] == [1]


def test_what_cannot_be_recorded_has_happened_all_the_same(
    service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer tells the truth, and the log what the audit lacks."""

    def fail(_: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(service.access, "record", fail)
    assert service.http.post("/v1/sweeps", json=SPEC).status_code == 202
    assert "not recorded" in caplog.text


def test_keys_that_cannot_be_looked_up_are_a_503(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is let in because the database is away, nor told that the key is bad, nor where the database is."""
    service = make_service(require_keys=True)
    headers = key_for(service, Scope.READ)

    def fail(_: object) -> None:
        raise Unavailable('the database does not answer: connection to "db.lab" failed')

    monkeypatch.setattr(service.access, "key", fail)
    answer = service.http.get("/v1/sweeps", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "API keys cannot be looked up at present"
    assert "db.lab" in caplog.text


def test_the_client_shows_its_key(make_service: Make) -> None:
    """And says what the service says where it has none."""
    service = make_service(require_keys=True)
    key, text = new_key("ada", [Scope.READ], at=service.clock.now())
    service.access.add_key(key)
    with Client("http://127.0.0.1", key=text, transport=service.transport) as client:
        assert client.sweeps() == []
        with pytest.raises(ClientError, match="need a key with the scope admin"):
            client.deeds()
    with Client("http://127.0.0.1", transport=service.transport) as client:
        with pytest.raises(ClientError, match="need an API key") as caught:
            client.sweeps()
        assert caught.value.status == 401
    with pytest.raises(ClientError, match="keys create"):
        Client("http://127.0.0.1", key="käy\n")


def test_only_so_many_buckets_are_remembered(service: Any) -> None:
    """Those used longest ago are forgotten first."""
    buckets = TokenBuckets(service.clock.now)
    assert buckets.take("first", 1) == 0
    assert buckets.take("first", 1) == 60
    for number in range(MAX_BUCKETS):
        assert buckets.take(f"address {number}", 1) == 0
    assert buckets.take("first", 1) == 0
    assert buckets.take(f"address {MAX_BUCKETS - 1}", 1) == 60
