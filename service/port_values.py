"""What the ports take and give beside the domain's nouns. All are frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from service.domain import SweepState, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many there are of what, at one moment."""

    sweeps: Mapping[SweepState, int]
    """A state without any may be left out."""
    trials: Mapping[TrialState, int]
    queued_since: datetime | None
    """Since when the one of the queued sweeps that has waited longest has been queued; None: none is."""
    untracked: int
    """Events that the tracker does not have yet."""
    gpus: float
    """Those of the running trials together, as their specs ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What a sweep that is queued waits for."""

    driven: int
    """Sweeps that have a driver."""
    queued: int
    """Sweeps that are queued too and are launched before it; none where it is not queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an idempotency key stands for: the sweep that the first request with it makes."""

    key: str
    fingerprint: str
    """Of that request; another request with this key has another one."""
    sweep_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who of several processes does what only one of them may do at a time."""

    holder: str
    beat: int
    """Counts its renewals; as long as it goes up, the holder is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the cluster says of a sweep's driver."""

    state: Literal["pending", "running", "succeeded", "failed", "stopped", "missing"]
    message: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self.state in ("pending", "running")
