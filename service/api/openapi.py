"""The API's description of itself (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from search_spaces import studies
from service.api.links import add_links
from service.api.problems import MEDIA_TYPE, Problem
from service.api.scopes import scopes_for
from service.spec import SweepSpec

KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, of `sweepserve keys create`. An operation lists the scopes of which it needs one.",
}

STUDY = {
    "type": "object",
    "properties": {
        "study": {"enum": studies(), "description": "the name of a packaged study"},
        "scaled": {"type": "boolean", "default": False, "description": "cut down to a small machine, by its `scale`"},
    },
    "required": ["study"],
    "additionalProperties": False,
}

FAILURE = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def openapi(app: FastAPI, *, keys_required: bool) -> dict[str, Any]:
    """FastAPI's description of the API, with the errors that it really answers and the keys that it asks for."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        shapes = schema["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            shapes.pop(unused, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        shapes.update(problem.pop("$defs"), Problem=problem, SweepSpec=SweepSpec.json_schema(), Study=STUDY)
        schema["components"]["securitySchemes"] = {"key": KEY}
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _describe_errors(operation, path)
                _describe_keys(operation, method.upper(), path, required=keys_required)
        add_links(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_errors(operation: dict[str, Any], path: str) -> None:
    operation["responses"].pop("422", None)
    inference = path == "/v2" or path.startswith("/v2/")
    operation["responses"]["default"] = {
        "description": "An error of the Open Inference Protocol" if inference else "A problem (RFC 9457)",
        "content": {"application/json": {"schema": FAILURE}}
        if inference
        else {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _describe_keys(operation: dict[str, Any], method: str, path: str, *, required: bool) -> None:
    scopes = scopes_for(method, path)
    if scopes is None:
        return
    operation["security"] = [{"key": sorted(scopes)}, *([] if required else [{}])]
