"""OpenAPI links: which answers hold what other operations ask for. Tools follow them from one to the next."""

from __future__ import annotations

from typing import Any

FOUND: tuple[tuple[str, str, str, str], ...] = (
    ("submit_sweep", "202", "sweep_id", "$response.body#/id"),
    ("list_sweeps", "200", "sweep_id", "$response.body#/sweeps/0/id"),
    ("list_models", "200", "name", "$response.body#/models/0/name"),
    ("list_families", "200", "name", "$response.body#/families/0/name"),
)
"""Operation, status, path parameter, and where in that answer its value is."""


def add_links(schema: dict[str, Any]) -> None:
    """Links every one of these answers to the operations of the same resource that take what is in it."""
    operations = {
        operation["operationId"]: (path, operation)
        for path, methods in schema["paths"].items()
        for operation in methods.values()
    }
    for source, status, parameter, place in FOUND:
        if source not in operations:
            continue
        resource, answering = operations[source]
        links = answering["responses"][status].setdefault("links", {})
        for name, (path, _) in operations.items():
            if path.startswith(f"{resource}/{{{parameter}}}"):
                links[name] = {"operationId": name, "parameters": {parameter: place}}
