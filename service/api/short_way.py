"""The short way to what is asked most: a model, about an image.

FastAPI works out for each request how to call its function, which takes longer than a small model does. A request
without a query needs none of that: what the path does not say has its default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from service.api.parts import model_parts


@final
class ShortWay(BaseRoute):
    """Stands before FastAPI's own route and takes the requests without a query; the others pass it by.

    Args:
        route: its function is given `request`, `here` (`Asked`) and the path's parameters, which are texts; all others
            have defaults. It returns a response.
    """

    def __init__(self, route: APIRoute) -> None:
        self._route, self.path_format = route, route.path_format
        self._methods = route.methods or set()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request can go this way."""
        if scope["type"] != "http" or scope["query_string"] or scope["method"] not in self._methods:
            return Match.NONE, {}
        found = self._route.path_regex.match(scope["path"])
        if found is None:
            return Match.NONE, {}
        return Match.FULL, {"route": self._route, "path_params": found.groupdict()}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers it; errors are answered by the app's handlers."""
        request = Request(scope, receive, send)
        response = await self._route.endpoint(request=request, here=await model_parts(request), **scope["path_params"])
        await response(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """The route itself is found by its name, the way to it is not."""
        raise NoMatchFound(name, path_params)


def short_ways(*routers: APIRouter) -> Iterator[ShortWay]:
    """To what is posted to these."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
                yield ShortWay(route)
