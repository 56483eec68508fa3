"""Every answer that is not a success: `application/problem+json` (RFC 9457), and the one table of domain errors."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.api.strict_json import StrictJSON
from service.api.versions import NotModified, not_modified
from service.errors import (
    BadImage,
    BadRequest,
    Conflict,
    Forbidden,
    IllegalMove,
    InvalidSpec,
    KeyReused,
    NotFound,
    ServiceError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from trainables.config import Fault

STATUS: Mapping[type[ServiceError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    IllegalMove: HTTPStatus.CONFLICT,
    InvalidSpec: HTTPStatus.UNPROCESSABLE_ENTITY,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    BadImage: HTTPStatus.BAD_REQUEST,
    BadRequest: HTTPStatus.BAD_REQUEST,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"
"""Seconds after which asking again may help, where something does not answer."""

logger = logging.getLogger(__name__)


class Error(BaseModel):
    """One thing wrong with a request."""

    pointer: str
    """JSON pointer (RFC 6901) into the body; what is not in the body starts with `/query`, `/path` or `/header`."""
    detail: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Error] = []


def problem(
    status: int,
    detail: str,
    *,
    instance: str,
    faults: Iterable[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem as a response; `errors` is in it where there are faults. Below /v2 it has that protocol's own form."""
    if instance == "/v2" or instance.startswith("/v2/"):
        return StrictJSON({"error": detail}, status_code=status, headers=dict(headers or {}))
    content: dict[str, Any] = {
        "type": "about:blank",  # the status says it all; each has one meaning here
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": instance,
    }
    errors = [{"pointer": fault.pointer, "detail": fault.message} for fault in faults]
    if errors:
        content["errors"] = errors
    return StrictJSON(content, status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def handle_errors(app: FastAPI) -> None:
    """From now on every error of the app is answered as a problem, and who has an answer already is told so."""
    app.add_exception_handler(NotModified, not_modified)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return service_problem(error, instance=request.url.path)


def service_problem(error: ServiceError, *, instance: str) -> JSONResponse:
    """An error of the domain as a response."""
    faults = error.faults if isinstance(error, InvalidSpec) else ()
    detail = f"the spec has {len(faults)} fault{'s' * (len(faults) != 1)}" if faults else str(error)
    headers: dict[str, str] = {}
    match error:
        case Unavailable():
            headers["Retry-After"] = RETRY_AFTER
        case TooManyRequests():
            headers["Retry-After"] = str(math.ceil(error.seconds))
        case Unauthorized():
            headers["WWW-Authenticate"] = 'Bearer realm="sweepserve"'
    return problem(STATUS[type(error)], detail, instance=instance, faults=faults, headers=headers)


def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault(tuple(one["loc"][1:] if one["loc"][0] == "body" else one["loc"]), one["msg"]) for one in error.errors()
    ]
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "; ".join(map(str, faults)),
        instance=request.url.path,
        faults=faults,
    )


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:  # a router's own: say what there is instead
        detail = {
            HTTPStatus.NOT_FOUND: f"there is nothing at {request.url.path}; /docs lists what there is",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} cannot be asked with {request.method}",
        }.get(HTTPStatus(error.status_code), detail)
    return problem(error.status_code, detail, instance=request.url.path, headers=error.headers)


def _gone(_request: Request, _error: Exception) -> Response:
    """To nobody: the client went away, while it sent its body or while it waited. The number is nginx's."""
    return Response(status_code=499)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # Starlette asks for this outside of all middleware: what `Observing` gives other answers is given here.
    trace_id = getattr(request.state, "trace_id", "")
    logger.error(
        "%s %s failed, request %s",
        *(request.method, request.url.path, trace_id),
        exc_info=error,
        extra={"data": {"trace_id": trace_id}},
    )
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"the service made a mistake; its log says more, at request {trace_id}",
        instance=request.url.path,
        headers={"X-Request-Id": trace_id},
    )
