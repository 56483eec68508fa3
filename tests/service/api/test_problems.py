"""Errors over HTTP: one form for all of them, whoever raises them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.api.problems import STATUS
from service.errors import InvalidSpec, ServiceError
from trainables.config import Fault


def _below(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def test_every_error_of_the_domain_has_a_status() -> None:
    """A new error that nobody gave a status fails here, not before a user."""
    assert set(STATUS) == set(_below(ServiceError))


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.__name__)
def test_each_error_is_answered_with_its_status_and_its_text(service: Any, kind: type[ServiceError]) -> None:
    """Raised in a route, each becomes a problem that says what and where."""
    error = InvalidSpec([Fault(("name",), "is required and missing")]) if kind is InvalidSpec else kind("no such thing")

    def fail() -> None:
        raise error

    service.app.add_api_route("/fail", fail)
    answer = service.http.get("/fail")
    assert answer.status_code == STATUS[kind]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "about:blank"
    assert problem["title"] == STATUS[kind].phrase
    assert (problem["status"], problem["instance"]) == (STATUS[kind], "/fail")
    assert problem["detail"] == ("the spec has 1 fault" if kind is InvalidSpec else "no such thing")


def test_a_path_that_is_not_there_is_a_404(service: Any) -> None:
    """The router's own errors have the same form."""
    answer = service.http.get("/v1/sweep")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["detail"] == "there is nothing at /v1/sweep; /docs lists what there is"


def test_a_method_that_a_path_does_not_take_is_a_405(service: Any) -> None:
    """The answer keeps the header that lists the methods."""
    answer = service.http.delete("/v1/sweeps")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert answer.json()["detail"] == "/v1/sweeps cannot be asked with DELETE"
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


def test_our_own_mistake_is_a_500_without_a_traceback(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that it was not its fault; the log has the rest."""

    def fail() -> None:
        raise RuntimeError("the password is swordfish")

    service.app.add_api_route("/fail", fail)
    answer = service.http.get("/fail")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "swordfish" not in answer.text
    assert "swordfish" in caplog.text
    request = answer.headers["X-Request-Id"]
    assert answer.json()["detail"].endswith(f"at request {request}")
    assert f"GET /fail failed, request {request}" in caplog.text


@pytest.mark.parametrize(
    ("path", "query", "kind"),
    [
        ("/v1/sweeps", b"", b"application/json"),
        ("/v1/models/digits/predict", b"", b"application/json"),
        ("/v1/models/digits/predict", b"", b"image/png"),
        ("/v1/models/digits/predict", b"steps=1", b"multipart/form-data; boundary=x"),
        ("/v2/models/digits/infer", b"", b"application/json"),
    ],
)
def test_a_client_that_goes_away_while_it_sends_is_no_mistake_of_the_service(
    service: Any, portal: Any, caplog: pytest.LogCaptureFixture, path: str, query: bytes, kind: bytes
) -> None:
    """By FastAPI's way and by the short one: counted as such, nothing is raised and nothing is logged."""
    service.model()
    messages = iter([{"type": "http.request", "body": b"--x\r\n", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", kind), (b"content-length", b"99")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": query, "headers": headers}
    portal.call(service.app, scope, receive, send)
    assert [message.get("status") for message in sent] == [499, None]
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
    assert service.http.get("/metrics").text.count('status="499"} 1.0\n') == 1
