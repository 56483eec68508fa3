"""By which names the API may be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_loopback_is_asked_by_its_own_names(service: Any, host: str) -> None:
    """With or without a port."""
    assert service.http.get("/healthz", headers={"host": host}).status_code == 200


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
        ({"host": "0.0.0.0"}, "lab.example", 200),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "lab.example", 200),
        ({"host": "0.0.0.0", "allowed_hosts": "lab.example"}, "evil.example", 421),
    ],
)
def test_a_setting_says_which_names_are_ours(
    make_service: Callable[..., Any], settings: dict[str, str], host: str, status: int
) -> None:
    """Beside loopback's on loopback; on a network, any name as long as none is said."""
    answer = make_service(**settings).http.get("/healthz", headers={"host": host})
    assert answer.status_code == status
