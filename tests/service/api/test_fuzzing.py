"""The API keeps its OpenAPI document whatever it is sent; benchmarks/api_fuzzing.py asks far more often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.api_fuzzing import Found, fuzz, served


@pytest.mark.slow
def test_no_answer_is_a_server_error_or_another_than_described(tmp_path: Path) -> None:
    """Schemathesis sends each operation what it may and may not be sent, and follows links from answer to request."""
    found = Found()
    with served(tmp_path / "home") as (url, key):
        paths = httpx.get(f"{url}/openapi.json").json()["paths"]
        phases = "examples,fuzzing,stateful"
        found.add(fuzz(url, key, phases=phases, examples=4, seed=1, folder=tmp_path))
    assert found.failures == []
    assert found.unanswered == 0
    assert max(found.statuses) < 500
    assert found.phases["examples"] >= 1
    assert found.phases["fuzzing"] >= 3 * len(paths)
    assert found.phases["stateful"] >= 4


def test_links_lead_from_a_sweep_to_all_that_can_be_asked_of_it(service: Any) -> None:
    """Whoever submitted one can go on by the document alone."""
    paths = service.http.get("/openapi.json").json()["paths"]
    links = paths["/v1/sweeps"]["post"]["responses"]["202"]["links"]
    about_one = {
        operation["operationId"]
        for path, operations in paths.items()
        if path.startswith("/v1/sweeps/{sweep_id}")
        for operation in operations.values()
    }
    assert set(links) == about_one
    assert links["stop_sweep"] == {"operationId": "stop_sweep", "parameters": {"sweep_id": "$response.body#/id"}}
