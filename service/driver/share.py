"""What a trial gets of a machine."""

from __future__ import annotations

from typing import TypedDict

from service.plan import Resources


class Share(TypedDict):
    """Processors and GPUs of one trial."""

    cpus: float
    gpus: float


def share(resources: Resources, *, enlarged: bool) -> Share:
    """What a spec's resources say, or twice that.

    Several trials can share a GPU, but several GPUs can only be had whole.
    """
    cpus, gpus = resources.cpus, resources.gpus
    if not enlarged:
        return Share(cpus=cpus, gpus=gpus)
    return Share(cpus=2 * cpus, gpus=min(2 * gpus, 1.0) if gpus < 1 else 2 * gpus)
