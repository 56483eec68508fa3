"""Which scopes each request needs: the one table, by method and path."""

from __future__ import annotations

from service.access import Scope

HEALTH = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
OPEN = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/openapi.json", *HEALTH})
OPEN_BELOW = ("/static-offline-docs/", "/v2/health/")
ADMIN_BELOW = ("/v1/audit",)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def scopes_for(method: str, path: str) -> frozenset[Scope] | None:
    """A key for the request needs one of these (or `admin`); None: no key is needed.

    A route that nobody thought of here needs `read` or, if it may change something, `submit`.
    """
    if path in OPEN or path.startswith(OPEN_BELOW):
        return None
    if path.startswith(ADMIN_BELOW):
        return frozenset({Scope.ADMIN})
    if path == "/v2" or path.startswith("/v2/") or (path.startswith("/v1/models/") and path.endswith("/predict")):
        return frozenset({Scope.PREDICT})
    if path.endswith(":validate"):
        return frozenset({Scope.READ, Scope.SUBMIT})
    if method not in SAFE:
        return frozenset({Scope.SUBMIT})
    asks_for_models = path.startswith("/v1/models")
    return frozenset({Scope.READ, Scope.PREDICT} if asks_for_models else {Scope.READ})
