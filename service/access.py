"""Who may ask the service for what: API keys and their scopes, and the record of who changed what.

A key is a text that its owner keeps; the service keeps a digest of it. The text is `sweepserve_ID_SECRET`: the id says
which key it is, the secret is 32 random bytes. So many cannot be guessed, which is why a plain SHA-256 does and no slow
hash for passwords is needed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

PREFIX = "sweepserve"
NOBODY = "0" * 64
"""A digest that no secret has: what a key that does not exist is compared with, so that both take the same time."""


MOST = 2**31 - 1
"""Of a key's limits: databases keep them as such numbers."""


class Scope(StrEnum):
    """What a key is good for."""

    READ = "read"
    """Looking at everything."""
    SUBMIT = "submit"
    """Changing sweeps and models: submitting, stopping, promoting."""
    PREDICT = "predict"
    """Asking models about images."""
    ADMIN = "admin"
    """All of these, and who did what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as the service knows it: everything but its secret."""

    id: str
    name: str
    """Whose it is, or what it is for."""
    digest: str
    """SHA-256 of the secret, in hex."""
    scopes: frozenset[Scope]
    rate: int | None = None
    """Requests a minute; None: as the settings say."""
    max_body_bytes: int | None = None
    """None: as the settings say."""
    created_at: datetime
    revoked_at: datetime | None = None

    def allows(self, any_of: Collection[Scope]) -> bool:
        """It is good for one of these."""
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(any_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that somebody changed."""

    number: int = 0
    """1, 2, ... in the order in which they were recorded; 0: not recorded yet."""
    at: datetime
    actor: str
    """The key's id and name, or where it was done without a key."""
    action: str
    """The operation's name: `submit_sweep`, `stop_sweep`, ..."""
    subject: str
    """Path of what was changed: `/v1/sweeps/abcd2345`."""
    trace_id: str = ""
    """Of the request that did it."""


class Access(Protocol):
    """Keeps keys and deeds. All methods raise `Unavailable` where the store does not answer."""

    def add_key(self, key: Key) -> None:
        """Keeps a new key."""

    def key(self, key_id: str) -> Key | None:
        """The key of this id, revoked or not; None: there is none."""

    def list_keys(self) -> list[Key]:
        """Every key, oldest first."""

    def revoke_key(self, key_id: str, *, at: datetime) -> Key:
        """The key is valid no more; again changes nothing. Raises NotFound."""

    def record(self, deed: Deed) -> None:
        """Keeps a deed and gives it its number."""

    def deeds(self, *, limit: int, before: int | None = None) -> list[Deed]:
        """The newest ones, newest first; `before`: of those with a smaller number."""


def new_key(
    name: str, scopes: Collection[Scope], *, at: datetime, rate: int | None = None, max_body_bytes: int | None = None
) -> tuple[Key, str]:
    """A new key, and its text, which nobody can tell again.

    Raises:
        ValueError: no name, a name with control characters, no scope, or a limit that is not from 1 to `MOST`.
    """
    if not name.strip() or not name.isprintable() or len(name) > 255:
        raise ValueError(f"a key needs a name of 1 to 255 printable characters, got {name!r}")
    if not scopes:
        raise ValueError(f"a key needs at least one scope of {', '.join(Scope)}")
    for what, limit in (("rate", rate), ("body limit", max_body_bytes)):
        if limit is not None and not 0 < limit <= MOST:
            raise ValueError(f"a key needs a {what} from 1 to {MOST}, got {limit}")
    key_id = base64.b32encode(secrets.token_bytes(5)).decode().lower()
    secret = secrets.token_hex(32)
    key = Key(
        id=key_id,
        name=name,
        digest=_digest(secret),
        scopes=frozenset(scopes),
        rate=rate,
        max_body_bytes=max_body_bytes,
        created_at=at,
    )
    return key, f"{PREFIX}_{key_id}_{secret}"


def key_id(text: str) -> str:
    """The id in a key's text; empty where it is no such text."""
    parts = text.split("_")
    return parts[1] if len(parts) == 3 and parts[0] == PREFIX and text.isascii() else ""


def is_valid(text: str, key: Key | None) -> bool:
    """Whether this text is that of this key and still good. The time it takes does not tell how much of it is right."""
    secret = text.rpartition("_")[2]
    same = hmac.compare_digest(_digest(secret), key.digest if key is not None else NOBODY)
    return same and key is not None and key.revoked_at is None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
