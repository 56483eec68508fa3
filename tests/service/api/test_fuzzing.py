"""The API keeps its OpenAPI document whatever it is sent; benchmarks/api_fuzzing.py asks far more often."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.access import Scope, new_key
from service.adapters.sql_store import SqlStore

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)


@pytest.mark.slow
def test_no_answer_is_a_server_error_or_another_than_described(
    make_service: Callable[..., Any], serve: Callable[[Any], str], tmp_path: Path
) -> None:
    """Schemathesis sends each operation what it may and may not be sent, and follows links from answer to request."""
    store = SqlStore(f"sqlite:///{tmp_path}/store.db")
    store.migrate()
    service = make_service(store, require_keys=True, rate_limit=10**6)
    service.model()
    key, text = new_key("fuzzer", [Scope.ADMIN], at=service.clock.now())
    service.access.add_key(key)
    report = tmp_path / "events.ndjson"
    command = [
        *(str(Path(sys.executable).parent / "st"), "run", f"{serve(service.app)}/openapi.json", "--no-color"),
        *("--header", f"Authorization:Bearer {text}", "--checks", ",".join(CHECKS), "--seed", "1"),
        *("--phases", "examples,fuzzing,stateful", "--max-examples", "4", "--suppress-health-check", "all"),
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    phases = [
        (finished["phase"], len(finished["recorder"].get("interactions", {})))
        for line in report.read_text().splitlines()
        if (finished := json.loads(line).get("ScenarioFinished"))
    ]
    asked = {
        name: sum(count for phase, count in phases if phase == name) for name in ("examples", "fuzzing", "stateful")
    }
    assert asked["examples"] >= 1
    assert asked["fuzzing"] >= 3 * len(service.app.openapi()["paths"])
    assert asked["stateful"] >= 4
    store.close()


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
