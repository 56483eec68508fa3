"""Random numbers that follow from a trial's seed and a place in its training, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are for; streams are unrelated to each other."""

    ORDER = 0
    LAYERS = 1
    AUGMENTATION = 2


def derive(seed: int, place: int, stream: Stream) -> int:
    """64 random bits for one use at one place (an epoch, a step)."""
    return int(np.random.SeedSequence(seed, spawn_key=(place, stream)).generate_state(1, np.uint64)[0])


def generator(seed: int, place: int, stream: Stream) -> torch.Generator:
    """A generator of its own, on the CPU."""
    return torch.Generator().manual_seed(derive(seed, place, stream))


@contextmanager
def layers_seeded(seed: int, place: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators seeded for what layers draw (initial weights, dropout), and put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(seed, place, Stream.LAYERS))
        yield
