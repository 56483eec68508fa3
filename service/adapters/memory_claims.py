"""Idempotency keys in memory. See `memory_store`."""

from __future__ import annotations

from datetime import datetime

from service.port_values import Claim


class MemoryClaims:
    """Who came with a key first, by key; the store holds the lock."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def claim(self, claim: Claim, *, expired_before: datetime) -> Claim:
        """As `ports.Store.claim`."""
        self._claims = {key: one for key, one in self._claims.items() if one.at >= expired_before}
        return self._claims.setdefault(claim.key, claim)

    def claimed(self, key: str, *, since: datetime) -> Claim | None:
        """As `ports.Store.claimed`."""
        found = self._claims.get(key)
        return found if found is not None and found.at >= since else None

    def forget(self, sweep_id: str) -> None:
        """Those of a sweep that is deleted."""
        self._claims = {key: one for key, one in self._claims.items() if one.sweep_id != sweep_id}
