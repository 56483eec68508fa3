"""Events as Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from service.access import Scope, new_key
from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.api.event_stream import EventStream, OpenStreams, event_stream
from service.domain import Sweep, SweepState
from service.errors import TooManyRequests

STREAM = {"accept": "text/event-stream"}


def read(text: str) -> list[tuple[int, str, Any]]:
    """The number, kind and content of each event in a stream."""
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if "id: " in block
    ]
    return [(int(one["id"]), one["event"], json.loads(one["data"])) for one in blocks]


def ended(service: Any) -> Sweep:
    """A sweep that has completed, with one trial."""
    sweep: Sweep = service.running()
    service.trial(sweep, 0)
    return service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())  # type: ignore[no-any-return]


def test_a_stream_has_every_event_and_ends_with_the_sweep(service: Any) -> None:
    """Each once, as the list has them; nothing may keep a copy."""
    sweep = ended(service)
    answer = service.http.get(f"/v1/sweeps/{sweep.id}/events", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith("retry: ")
    listed = service.http.get(f"/v1/sweeps/{sweep.id}/events").json()["events"]
    assert [content for _, _, content in read(answer.text)] == listed
    assert [(number, kind) for number, kind, _ in read(answer.text)] == [(e["number"], e["kind"]) for e in listed]


def test_a_reader_that_comes_back_goes_on_after_its_last_event(service: Any) -> None:
    """By `Last-Event-ID`, which wins over `after`; one that is no number is a fault."""
    sweep = ended(service)
    url = f"/v1/sweeps/{sweep.id}/events"
    for query, headers in [("?after=3", {}), ("?after=1", {"last-event-id": "3"})]:
        answer = service.http.get(url + query, headers={**STREAM, **headers})
        assert [number for number, _, _ in read(answer.text)] == [4, 5]
    refused = service.http.get(url, headers={**STREAM, "last-event-id": "x"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/header/Last-Event-ID")
    assert service.http.get("/v1/sweeps/none/events", headers=STREAM).status_code == 404


def test_events_come_as_they_happen(service: Any, serve: Callable[..., str]) -> None:
    """Over a real connection, while the sweep runs."""
    sweep = service.running()
    with httpx.stream("GET", f"{serve(service.app)}/v1/sweeps/{sweep.id}/events", headers=STREAM, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("id: 2"))
        service.store.add_progress(sweep.id, what="images", done=1, total=2, at=service.clock.now())
        assert next(line for line in lines if line.startswith("event: progress"))
        service.store.move_sweep(sweep.id, SweepState.FAILED, at=service.clock.now(), reason="no reason")
        assert any("no reason" in line for line in lines)


@pytest.mark.parametrize("state", [SweepState.QUEUED, SweepState.RUNNING])
def test_a_silent_stream_still_says_that_it_is_there(state: SweepState) -> None:
    """A comment, which readers pass over, each time that nothing has happened for so long."""

    async def heard() -> list[str]:
        store = MemoryStore()
        at = ManualClock().now()
        store.add_sweep(Sweep(id="s", name="n", spec={}, created_at=at))
        if state is not SweepState.QUEUED:
            store.move_sweep("s", state, at=at)
        stream = event_stream(store, "s", store.sweep("s").last_event, poll=0.001, heartbeat=0.002)
        return [await anext(stream) for _ in range(3)]

    assert anyio.run(heard)[1:] == [": nothing new\n\n"] * 2


def key_for(service: Any) -> dict[str, str]:
    """The headers of a stream that a new key asks for."""
    key, text = new_key("ada", [Scope.READ], at=service.clock.now())
    service.access.add_key(key)
    return {**STREAM, "Authorization": f"Bearer {text}"}


def test_a_key_that_has_its_streams_open_gets_no_more(
    make_service: Callable[..., Any], serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """429, and when to come again; another key has places of its own."""
    monkeypatch.setattr("service.api.event_stream.STREAMS_A_READER", 2)
    service = make_service(require_keys=True)
    ada, bob = key_for(service), key_for(service)
    url = f"{serve(service.app)}/v1/sweeps/{service.running().id}/events"
    done = f"/v1/sweeps/{ended(service).id}/events"
    with httpx.stream("GET", url, headers=ada) as one, httpx.stream("GET", url, headers=ada) as two:
        assert (one.status_code, two.status_code) == (200, 200)
        refused = service.http.get(done, headers=ada)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
        assert refused.headers["content-type"] == "application/problem+json"
        assert service.http.get(done, headers=bob).status_code == 200


def test_places_for_streams_are_bounded_for_a_reader_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """And free again once a stream has ended."""
    monkeypatch.setattr("service.api.event_stream.STREAMS_A_READER", 2)
    monkeypatch.setattr("service.api.event_stream.STREAMS", 3)
    places = OpenStreams()
    for _ in range(2):
        with places.place("ada"), places.place("ada"), places.place("bob"):
            with pytest.raises(TooManyRequests, match="2 streams are open already for ada"), places.place("ada"):
                pass
            with pytest.raises(TooManyRequests, match="3 streams are open already"), places.place("eve"):
                pass
    assert not places._open


def test_a_reader_that_takes_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream cannot end by itself: there is always something left to send."""
    monkeypatch.setattr("service.api.event_stream.LASTS_SECONDS", 0.0)
    monkeypatch.setattr("service.api.event_stream.LINGERS_SECONDS", 0.01)
    store, places = MemoryStore(), OpenStreams()
    store.add_sweep(Sweep(id="s", name="n", spec={}, created_at=ManualClock().now()))

    async def answer() -> None:
        stream = EventStream(event_stream(store, "s", 0), places=places, reader="ada")
        with anyio.fail_after(10):
            await stream({"type": "http"}, anyio.sleep_forever, stuck)

    async def stuck(_: object) -> None:
        assert places._open["ada"] == 1
        await anyio.sleep_forever()

    anyio.run(answer)
    assert not places._open


def test_a_stream_ends_when_its_key_is_revoked(
    make_service: Callable[..., Any], serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked up again and again; the sweep goes on."""
    monkeypatch.setattr("service.api.event_stream.ASKS_SECONDS", 0.0)
    service = make_service(require_keys=True)
    ada = key_for(service)
    url = f"{serve(service.app)}/v1/sweeps/{service.running().id}/events"
    with httpx.stream("GET", url, headers=ada, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("id: 2"))
        service.access.revoke_key(service.access.list_keys()[0].id, at=service.clock.now())
        for line in lines:
            assert not line.startswith(":"), "it is still there"
