"""API keys and the record of deeds in this process's memory, for tests."""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime

from service.access import Deed, Key
from service.errors import NotFound


class MemoryAccess:
    """`access.Access` in a dictionary and a list, for threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._deeds: list[Deed] = []

    def add_key(self, key: Key) -> None:
        with self._lock:
            self._keys[key.id] = key

    def key(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def list_keys(self) -> list[Key]:
        with self._lock:
            return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    def revoke_key(self, key_id: str, *, at: datetime) -> Key:
        with self._lock:
            if key_id not in self._keys:
                raise NotFound(f"there is no key {key_id!r}")
            key = self._keys[key_id]
            self._keys[key_id] = revoked = key if key.revoked_at else replace(key, revoked_at=at)
            return revoked

    def record(self, deed: Deed) -> None:
        with self._lock:
            self._deeds.append(replace(deed, number=len(self._deeds) + 1))

    def deeds(self, *, limit: int, before: int | None = None) -> list[Deed]:
        with self._lock:
            found = [deed for deed in reversed(self._deeds) if before is None or deed.number < before]
            return found[:limit]
