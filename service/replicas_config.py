"""Replicas on the Ray cluster: how many there are, what each takes, and where they are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlsplit

from trainables.config import Config, setting

TOLD = ("SWEEPSERVE_SERVING", "SWEEPSERVE_MAX_IMAGES", "SWEEPSERVE_MAX_IMAGE_PIXELS")
"""The settings by which answers are made: a replica has them from the API, all others from its node's environment."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasConfig(Config):
    """How models are run by replicas."""

    url: str = setting(
        "http://127.0.0.1:8001", help="of Ray Serve's HTTP proxy; another address than loopback: every node has one"
    )
    min: int = setting(1, at_least=0, help="replicas that there always are")
    max: int = setting(1, at_least=1, help="replicas that there may be")
    cpus: float = setting(
        1.0, at_least=0, help="processors of a replica; it runs models in so many threads, at least one"
    )
    gpus: float = setting(0.0, at_least=0, help="GPUs of a replica, or a share of one")
    target: int = setting(32, at_least=1, help="requests under way a replica that the number of replicas aims at")

    def rules(self) -> Iterator[tuple[str, str]]:
        """There may be as many as there must be; the address is one of HTTP."""
        if self.max < self.min:
            yield "max", f"need at least min, {self.min}, got {self.max}"
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            yield "url", f"need http://HOST:PORT, got {self.url!r}"

    @property
    def host(self) -> str:
        """Where the proxy is reached."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.url).port or 80

    @property
    def workers(self) -> int:
        """Threads of a replica that run models."""
        return max(1, int(self.cpus))


def replicas_config(text: str) -> ReplicasConfig | None:
    """The settings in a JSON object; None where there is none.

    Raises:
        ValueError: it is no such object.
    """
    try:
        return _config(json.loads(text)) if text else None
    except ValueError as error:
        raise ValueError(f"SWEEPSERVE_REPLICAS: {error}") from error


def _config(document: Any) -> ReplicasConfig:
    if not isinstance(document, dict):
        raise ValueError('need an object, as {"max": 4}')
    return ReplicasConfig.from_dict(document)
