"""Random numbers of which every image has its own stream: the same whatever was drawn for other images.

SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"): draw n of a stream is
`mix(start + n * gamma)`, a counter-based generator. Streams of one seed have different starts, because `mix` is a
bijection of (split, image).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from trainables.data.compiled import compiled

Stream = npt.NDArray[np.uint64]
"""One number: the position of the stream. Drawing moves it on."""

SPLITS: Mapping[str, int] = {"train": 0, "validation": 1, "test": 2, "pilot": 3}
GAMMA = np.uint64(0x9E3779B97F4A7C15)
_SPLIT_SHIFT = 48  # a split has fewer than 2**48 images


@compiled
def mix(x: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which every bit of `x` moves about half the bits of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _start(seed: np.uint64, image: np.uint64) -> np.uint64:
    return mix(mix(seed + GAMMA) ^ image)


def stream(seed: int, split: str, image: int) -> Stream:
    """The stream of one image."""
    number = np.uint64(SPLITS[split] << _SPLIT_SHIFT | image)
    return np.array([_start(np.uint64(seed), number)], dtype=np.uint64)


@compiled
def uniform(state: Stream) -> float:
    """A number in [0, 1), of 53 random bits."""
    state[0] += GAMMA
    return float(mix(state[0]) >> np.uint64(11)) * 2.0**-53


@compiled
def below(state: Stream, n: int) -> int:
    """A whole number in 0..n-1, for n far below 2**53 (then the bias is beyond measuring)."""
    return int(uniform(state) * n)


@compiled
def normal(state: Stream, deviation: float, most: float) -> float:
    """A normal number of mean 0, drawn again while it is more than `most` deviations away (Box and Muller 1958)."""
    while True:
        radius = np.sqrt(-2.0 * np.log(1.0 - uniform(state)))
        drawn = radius * np.cos(2 * np.pi * uniform(state))
        if abs(drawn) <= most:
            return float(deviation * drawn)
