"""Sweeps: checked, submitted, made from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response, status
from fastapi.exceptions import RequestValidationError

from service.api.details import detail
from service.api.json_body import json_body, optional_json_body, read_json
from service.api.parts import Here, Parts
from service.api.views import FirstPoint, Preview, SweepDetail
from service.domain import Sweep
from service.errors import InvalidSpec, Unavailable
from service.submission import Submissions
from service.warm_start import known

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])
FIRST = 5
"""Points in a preview."""
KEY_LENGTH = 255

_SPEC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [{"$ref": "#/components/schemas/SweepSpec"}, {"$ref": "#/components/schemas/Study"}]
                },
                "examples": {
                    "a sweep": {"value": {"name": "first", "family": "narrow_resnet", "data": {"name": "digits"}}},
                    "a study": {"value": {"study": "narrow-resnet-table-3", "scaled": True}},
                },
            }
        },
    }
}
_PATCH: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": {"type": "object", "title": "JSON merge patch"}}}}
}


def _key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Of your choice, one a sweep: asking again with it within a day gives the same sweep. "
            "In double quotes, or without"
        ),
    ] = None,
) -> str | None:
    """The caller's idempotency key, apart from the same text of another caller or for another path."""
    if idempotency_key is None:
        return None
    text = idempotency_key.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 0 < len(text) <= KEY_LENGTH:
        message = f"need 1 to {KEY_LENGTH} characters, got {len(text)}"
        raise RequestValidationError([{"loc": ("header", "Idempotency-Key"), "msg": message}])
    owner = getattr(request.state, "key", None)
    return f"{owner.id if owner is not None else ''}\n{request.url.path}\n{text}"


Key = Annotated[str | None, Depends(_key)]


@router.post("", status_code=status.HTTP_202_ACCEPTED, openapi_extra=_SPEC)
def submit_sweep(
    body: Annotated[bytes, Depends(json_body)], here: Here, key: Key, request: Request, response: Response
) -> SweepDetail:
    """Takes a sweep; it runs as soon as the cluster takes it. A spec that breaks rules is answered with all of them.

    The body is a spec, or names a packaged study: `{"study": "narrow-resnet-table-3", "scaled": true}`.
    """
    sweep = _submissions(here).create(read_json(body), key=key)
    return _created(here, sweep, request, response)


@router.post("/{sweep_id}/clone", status_code=status.HTTP_202_ACCEPTED, openapi_extra=_PATCH)
def clone_sweep(
    sweep_id: str,
    body: Annotated[bytes, Depends(optional_json_body)],
    here: Here,
    key: Key,
    request: Request,
    response: Response,
) -> SweepDetail:
    """Takes a new sweep with this one's spec; the body, where there is one, is a JSON merge patch (RFC 7386) to it."""
    sweep = _submissions(here).clone(sweep_id, read_json(body), key=key)
    return _created(here, sweep, request, response)


@router.post(":validate", openapi_extra=_SPEC)
def validate_sweep(body: Annotated[bytes, Depends(json_body)], here: Here) -> Preview:
    """What would run, and runs nothing. It has the faults that submitting would have, and those of the first points."""
    from service.adapters.optuna_search import Search  # takes its time to import

    spec = _submissions(here).checked(read_json(body))
    search = Search(spec, known=known(spec, here.store))
    asked = [one for _ in range(FIRST) if (one := search.ask()) is not None]
    if faults := [fault for _, point in asked for fault in spec.faults_at(point)]:
        raise InvalidSpec(list(dict.fromkeys(faults)))
    nodes = _nodes(here)
    return Preview(
        spec=spec.to_dict(),
        trials=spec.search.trials * spec.search.repeats,
        first=[FirstPoint(number=number, point=point, steps=spec.trial(point).steps) for number, point in asked],
        nodes=nodes,
        at_once=spec.resources.room(nodes) if nodes is not None else None,
    )


def _submissions(here: Parts) -> Submissions:
    return Submissions(
        store=here.store, clock=here.clock, weights_root=here.settings.weights_root, cluster=here.launcher
    )


def _nodes(here: Parts) -> list[Mapping[str, float]] | None:
    try:
        return [{name: node.get(name, 0) for name in ("CPU", "GPU")} for node in here.launcher.nodes()]
    except Unavailable:
        return None


def _created(here: Parts, sweep: Sweep, request: Request, response: Response) -> SweepDetail:
    response.headers["Location"] = str(request.app.url_path_for("get_sweep", sweep_id=sweep.id))
    return detail(here, sweep)
