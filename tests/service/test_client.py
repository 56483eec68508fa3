"""The client against the app itself, and against what is no sweepserve API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from service.client import PATIENCE, Client, ClientError, NoAnswer
from service.domain import SweepState, TrialState
from service.port_values import Job

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}}
SEVERAL = [{"metric": "validation/accuracy", "mode": "max"}, {"metric": "model/parameters", "mode": "min"}]
IMAGE = bytes(cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))[1])


@pytest.fixture(name="client")
def _client(service: Any) -> Iterator[Client]:
    with Client("http://127.0.0.1", transport=service.transport) as client:
        yield client


class _Flaky(httpx.BaseTransport):
    """Another transport, unplugged for some requests."""

    def __init__(self, inner: httpx.BaseTransport, *, fails: Callable[[int], bool]) -> None:
        self._inner, self._fails, self.asked = inner, fails, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self._fails(self.asked):
            raise httpx.ConnectError("unplugged")
        return self._inner.handle_request(request)


def test_a_sweep_is_submitted_found_and_stopped(client: Client) -> None:
    """The answers are the API's own."""
    sweep = client.submit(SPEC)
    assert client.sweep(sweep["id"]) == sweep
    assert [one["id"] for one in client.sweeps()] == [sweep["id"]]
    assert client.stop(sweep["id"])["state"] == "stopped"


def test_what_trials_did_is_listed(service: Any, client: Client) -> None:
    """Trials, leaderboard, measurements, events and the log."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    service.trial(sweep, 1, value=0.75)
    service.trial(sweep, 2)
    service.launcher.set_job(sweep.id, 1, Job(state="running"), logs="epoch 1\n")
    assert [trial["number"] for trial in client.trials(sweep.id)] == [0, 1, 2]
    assert [trial["number"] for trial in client.trials(sweep.id, states=["running"])] == [2]
    assert [trial["number"] for trial in client.leaderboard(sweep.id)] == [1, 0]
    assert len(client.measurements(sweep.id)) == 3
    assert len(client.measurements(sweep.id, trial=f"{sweep.id}-0001")) == 1
    assert [event["number"] for event in client.events(sweep.id, after=2)] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert client.logs(sweep.id) == "epoch 1\n"


def test_families_datasets_and_models_are_listed(service: Any, client: Client) -> None:
    """What can be asked for by name can be listed."""
    service.model()
    assert "narrow_resnet" in [family["name"] for family in client.families()]
    assert client.family("narrow_resnet")["space"]
    assert "digits" in [dataset["name"] for dataset in client.datasets()]
    assert [model["name"] for model in client.models()] == ["digits"]
    assert [version["version"] for version in client.model("digits")["versions"]] == [1]


def test_a_model_is_asked_about_files_and_bytes(service: Any, client: Client, tmp_path: Path) -> None:
    """Both at once, answered in their order."""
    service.model()
    path = tmp_path / "seven.png"
    path.write_bytes(IMAGE)
    first, second = client.predict("digits", [path, IMAGE])["predictions"]
    assert first == second
    path.write_bytes(IMAGE[:40])
    with pytest.raises(ClientError, match=r"images\[0\] \(seven.png\) cannot be read"):
        client.predict("digits", [path])


def test_a_bad_spec_raises_with_every_fault(client: Client) -> None:
    """The error carries the pointers, so that a program can show them."""
    with pytest.raises(ClientError, match="the spec has 2 faults") as raised:
        client.submit({**SPEC, "family": "none", "search": {"trials": 0}})
    assert raised.value.status == 422
    assert {error["pointer"] for error in raised.value.errors} == {"/family", "/search/trials"}


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_a_spec_that_json_cannot_say_is_refused_here(client: Client, value: Any) -> None:
    """Nothing is sent."""
    with pytest.raises(ClientError, match="the spec cannot be sent as JSON"):
        client.submit({**SPEC, "data": value})


@pytest.mark.parametrize("key", ["größe", "two\nlines", " k", "k "])
def test_an_idempotency_key_that_no_header_can_have_is_refused_here(client: Client, key: str) -> None:
    """By its own rule, and not as a spec that cannot be sent."""
    with pytest.raises(ClientError, match=r"need an idempotency key of printable ASCII characters .* got"):
        client.submit(SPEC, key=key)


@pytest.mark.parametrize(("key", "shown"), [(" sweepserve_a_b\n", "Bearer sweepserve_a_b"), (" ", None)])
def test_spaces_around_an_api_key_do_not_matter(key: str, shown: str | None) -> None:
    """Files and shells add them."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=[request.headers.get("authorization")]))
    with Client("http://lab", key=key, transport=transport) as client:
        assert client.sweep("a") == [shown]


@pytest.mark.parametrize("key", ["sweepserve_größe", "sweepserve_a\nb"])
def test_an_api_key_that_is_none_is_never_shown(key: str) -> None:
    """It may be nearly right."""
    with pytest.raises(ClientError) as raised:
        Client("http://lab", key=key)
    assert raised.value.detail == "need an API key as `sweepserve keys create` prints it"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"])
def test_this_machine_is_asked_past_the_environments_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would look for the service on its own machine; others are asked through it, where it can be used."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with Client(url), pytest.raises(ClientError, match=r"by the proxy and with .* the environment names: .*socksio"):
        Client("http://lab")


def test_this_machine_is_known_by_the_environments_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy before it, or a tunnel that ends here, may have one of the lab's own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "lab.pem"))
    with Client("http://localhost:9"), pytest.raises(ClientError, match=r"with the certificates .* No such file"):
        Client("https://localhost:9")


def test_all_pages_are_read_up_to_the_limit(service: Any, client: Client) -> None:
    """The newest sweeps, filtered as asked."""
    made = [service.sweep(name).id for name in ("a", "b", "a", "a")]
    assert [sweep["id"] for sweep in client.sweeps(name="a", limit=2)] == [made[3], made[2]]
    assert [sweep["id"] for sweep in client.sweeps(states=["queued"], limit=3)] == made[:0:-1]


class _NoStreams(httpx.BaseTransport):
    """Another transport, past a proxy that knows of no streams."""

    def __init__(self, inner: httpx.BaseTransport, *, keeps: bool) -> None:
        self._inner, self._keeps = inner, keeps

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.headers["accept"] == "text/event-stream":
            if self._keeps:
                raise httpx.ReadTimeout("nothing came")
            request.headers["accept"] = "application/json"
        return self._inner.handle_request(request)


def test_long_lists_are_read_to_their_end(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the service gives at a time."""
    monkeypatch.setattr("service.client.MAX_PAGE", 2)
    sweep = service.running(objectives=SEVERAL)
    for number in range(3):
        trial = service.trial(sweep, number)
        values = (0.5 + number, 10.0 + number)
        service.store.move_trial(trial.id, TrialState.COMPLETED, at=service.clock.now(), values=values)
    for name in ("a", "a", "a", "b", "c"):
        service.model(name)
    with Client("http://127.0.0.1", transport=service.transport) as client:
        assert len(client.sweeps(limit=None)) == 6
        assert [trial["number"] for trial in client.trials(sweep.id)] == [0, 1, 2]
        assert len(client.measurements(sweep.id)) == 3
        assert [point["number"] for point in client.leaderboard(sweep.id, limit=None)] == [2, 1, 0]
        assert client.pareto(sweep.id) == client.leaderboard(sweep.id)
        assert [curve["number"] for curve in client.curves(sweep.id, states=["completed"], points=5)] == [0, 1, 2]
        assert [model["name"] for model in client.models(family="narrow_resnet")] == ["a", "b", "c"]
        assert [one["version"] for one in client.model("a")["versions"]] == [3, 2, 1]
        assert [one["number"] for one in client.promotions("a")] == [3, 2, 1]
        with pytest.raises(ClientError, match="need 8 completed points"):
            client.importance(sweep.id, objective="model/parameters")


@pytest.mark.parametrize("keeps", [False, True])
def test_a_sweep_is_watched_also_where_no_stream_gets_through(service: Any, *, keeps: bool) -> None:
    """Each event comes once and in order, also those that happen just before the end is seen."""
    sweep = service.running()

    def finish() -> None:
        service.trial(sweep, 1, value=0.75)
        service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())

    steps = iter([lambda: service.trial(sweep, 0, value=0.5), finish])
    transport = _NoStreams(service.transport, keeps=keeps)
    client = Client("http://127.0.0.1", transport=transport, sleep=lambda _: next(steps)())
    watched = list(client.watch(sweep.id))
    client.close()
    assert [event["number"] for event in watched] == list(range(1, 10))
    assert watched[-1]["data"] == {"state": "completed", "reason": ""}


def test_a_watched_sweep_is_not_asked_for_again_and_again(service: Any, serve: Callable[..., str]) -> None:
    """One stream has what happens as it happens, each event once and in order; nobody sleeps between two looks."""
    sweep = service.running()
    numbers = []
    with Client(serve(service.app), sleep=lambda _: pytest.fail("it was asked again")) as client:
        for event in client.watch(sweep.id, after=1):
            numbers.append(event["number"])
            if event["number"] == 2:
                service.store.add_progress(sweep.id, what="\u2028\x85", done=1, total=2, at=service.clock.now())
            if event["number"] == 3:
                assert event["data"]["what"] == "\u2028\x85"
                service.trial(sweep, 0, value=0.5)
                service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    assert numbers == [2, 3, 4, 5, 6, 7]


def test_a_stream_that_ends_in_its_time_goes_on_in_another_one(
    service: Any, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, nothing comes twice, and nobody is told that the service was away: it was not."""
    monkeypatch.setattr("service.api.event_stream.LASTS_SECONDS", 0.0)
    monkeypatch.setattr("service.client.SILENCE", httpx.Timeout(5))  # a stream that did not end would be told of
    sweep = service.running()

    def finish() -> None:
        service.trial(sweep, 1, value=0.75)
        service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())

    steps = iter([lambda: service.trial(sweep, 0, value=0.5), lambda: None, finish])
    told: list[str] = []
    with Client(serve(service.app), sleep=lambda _: next(steps)()) as client:
        watched = list(client.watch(sweep.id, tell=told.append))
    assert [event["number"] for event in watched] == list(range(1, 10))
    assert not told


def test_watching_outlives_a_service_that_comes_back(service: Any) -> None:
    """Nothing is lost and nothing comes twice, whichever request it was that failed; it is told what goes on."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    transport = _Flaky(service.transport, fails=lambda asked: asked in (3, 4, 6))
    told: list[str] = []
    client = Client("http://127.0.0.1", transport=transport, sleep=lambda _: None)
    assert [event["number"] for event in client.watch(sweep.id, tell=told.append)] == [1, 2, 3, 4, 5, 6]
    client.close()
    lost = "http://127.0.0.1 does not answer: unplugged; trying again for 5 minutes"
    assert told == [lost, "http://127.0.0.1 answers again"] * 2


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_proxy_before_a_service_that_restarts_is_waited_for(service: Any, status: int) -> None:
    """What it says in the place of the service may change; what the service itself refuses does not."""
    sweep = service.running()
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    answers = iter([False, True, True, False])

    class Proxy(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(status) if next(answers, False) else service.transport.handle_request(request)

    with Client("http://127.0.0.1", transport=Proxy(), sleep=lambda _: None) as client:
        assert [event["number"] for event in client.watch(sweep.id)] == [1, 2, 3]
        service.store.delete_sweep(sweep.id)
        with pytest.raises(ClientError, match="there is no sweep"):
            list(client.watch(sweep.id))


@pytest.mark.parametrize("streams", [True, False])
def test_watching_gives_up_on_a_service_that_stays_away(service: Any, *, streams: bool) -> None:
    """After its patience, also where each request takes its time to fail; nothing is said but that it is gone."""
    sweep = service.running()
    unplugged = _Flaky(service.transport, fails=lambda asked: asked > (1 if streams else 2))
    transport = unplugged if streams else _NoStreams(unplugged, keeps=True)
    slept: list[float] = []
    told: list[str] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < PATIENCE, "it goes on for ever"

    def now() -> float:
        return sum(slept) + 5 * unplugged.asked

    with Client("http://127.0.0.1", transport=transport, sleep=sleep, now=now) as client:
        began = now()
        with pytest.raises(NoAnswer, match="unplugged"):
            list(client.watch(sweep.id, tell=told.append))
        assert PATIENCE < now() - began < PATIENCE + 30
        assert told == ["http://127.0.0.1 does not answer: unplugged; trying again for 5 minutes"]


def test_a_sweep_that_is_not_there_is_not_waited_for(client: Client) -> None:
    """It is refused at once."""
    with pytest.raises(ClientError, match="nonesuch"):
        next(client.watch("nonesuch"))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://lab", "", "http://[::1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ClientError, match="need "):
        Client(url)


def test_nobody_at_the_url_is_no_answer() -> None:
    """The message names the URL."""
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(NoAnswer, match=r"http://127\.0\.0\.1:9 does not answer"),
    ):
        client.sweeps()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(200, text="<html>"), "does not seem to be a sweepserve API"),
        (httpx.Response(502, text="<html>"), "answered 502 Bad Gateway"),
        (httpx.Response(400, json=["no"]), "answered 400 Bad Request"),
        (httpx.Response(307, headers={"location": "/elsewhere"}), "answered 307 Temporary Redirect"),
    ],
)
def test_another_service_at_the_url_is_told_apart(response: httpx.Response, message: str) -> None:
    """Not a KeyError, whatever it answers."""
    with (
        Client("http://proxy", transport=httpx.MockTransport(lambda _: response)) as client,
        pytest.raises(ClientError, match=message),
    ):
        client.families()


def test_a_name_never_leaves_its_place_in_the_path(client: Client) -> None:
    """Slashes and question marks belong to the name."""
    for name in ("a/b", "../families", "x?y=z"):
        with pytest.raises(ClientError) as raised:
            client.model(name)
        assert raised.value.status == 404


def test_importing_the_client_imports_nothing_heavy() -> None:
    """Programs and commands that only talk to a service start at once."""
    heavy = {"torch", "ray", "mlflow", "optuna", "fastapi", "sqlalchemy", "cv2", "numpy"}
    code = f"import service.client, sys; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
