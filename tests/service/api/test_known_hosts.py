"""By which names the API may be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.api.scopes import HEALTH


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_loopback_is_asked_by_its_own_names(service: Any, host: str) -> None:
    """With or without a port."""
    assert service.http.get("/v1/sweeps", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "", "[::2]"])
def test_a_foreign_name_on_loopback_is_refused(service: Any, host: str) -> None:
    """A page of another site that made its name lead here gets a problem and no data."""
    answer = service.http.get("/v1/sweeps", headers={"host": host})
    assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
    assert repr(host) in answer.json()["detail"]


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({"allowed_hosts": "lab.example, gpu.example"}, "gpu.example:8000", 200),
        ({"host": "0.0.0.0"}, "lab.example", 401),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "lab.example", 401),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "127.0.0.1:8000", 401),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "[::1]", 401),
        ({"host": "192.168.0.2", "allowed_hosts": "lab.example"}, "192.168.0.2:8000", 401),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "10.0.0.7:8000", 421),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "evil.example", 421),
    ],
)
def test_a_setting_says_which_names_are_ours(
    make_service: Callable[..., Any], settings: dict[str, str], host: str, status: int
) -> None:
    """Beside loopback's and its own; on a network, any name as long as none is said. Then a key is asked for."""
    answer = make_service(**settings).http.get("/v1/sweeps", headers={"host": host})
    assert answer.status_code == status


@pytest.mark.parametrize("path", sorted(HEALTH))
def test_its_health_is_told_by_any_name(make_service: Callable[..., Any], path: str) -> None:
    """A pod is probed by its address, which nobody can list."""
    service = make_service(host="0.0.0.0", allowed_hosts="lab.example")
    headers = {"host": "10.0.0.7:8000"}
    assert service.http.get(path, headers=headers).status_code in (200, 503)
    assert service.http.get("/metrics", headers=headers).status_code == 421
    answer = service.http.post(path, headers={**headers, "origin": "https://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:8000"}, 403),
        ({}, 200),
        ({"origin": "http://LOCALHOST:8000"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://outside.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_a_page_of_another_site_changes_nothing(service: Any, headers: dict[str, str], status: int) -> None:
    """Even where a browser would send it without asking first; programs and this service's own pages may."""
    for _ in range(2):
        service.model()
    headers = {"host": "localhost:8000", **headers}
    answer = service.http.post("/v1/models/digits/rollback", headers=headers)
    assert answer.status_code == status, answer.text
    assert service.store.champion("digits").version == (1 if status == 200 else 2)
    assert service.http.get("/v1/sweeps", headers=headers).status_code == 200


def test_the_refusal_says_which_pages_may(make_service: Callable[..., Any]) -> None:
    """On a network too, by whatever name, and before anybody asks for a key."""
    service = make_service(host="0.0.0.0")
    headers = {"host": "lab.example", "origin": "https://evil.example"}
    answer = service.http.delete("/v1/sweeps/none", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    said = "a page of https://evil.example may not DELETE here: only lab.example's own may"
    assert answer.json()["detail"] == said
    assert service.http.delete("/v1/sweeps/none", headers={"host": "lab.example"}).status_code == 401
