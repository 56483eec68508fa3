"""The three difficulties of cluttered ABC: how alike and how close the two letters are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """Standard deviations of the random map of a letter."""

    scale_power: float
    """Each axis is scaled by one half to this power."""
    rotation: float
    """Degrees."""
    shear: float

    @property
    def deviations(self) -> npt.NDArray[np.float64]:
        """The three as an array, for compiled code."""
        return np.array([self.scale_power, self.rotation, self.shear])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Variations shared by both letters and of each, and where letters are placed."""

    shared: Variation
    own: Variation
    radius: tuple[int, int]
    """Of a letter's centre of mass from the centre of the image, in pixels: from, up to (exclusive)."""
    separation: int
    """Least angle between the two letters, in degrees."""


_WIDE = Variation(scale_power=0.5, rotation=30, shear=0.2)
_NONE = Variation(scale_power=0.001, rotation=0.001, shear=0.001)
_HALF = Variation(scale_power=0.5 / math.sqrt(2), rotation=30 / math.sqrt(2), shear=0.2 / math.sqrt(2))

DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(shared=_WIDE, own=_NONE, radius=(50, 60), separation=170),
    "intermediate": Difficulty(shared=_HALF, own=_HALF, radius=(40, 70), separation=110),
    "hard": Difficulty(shared=_NONE, own=_WIDE, radius=(30, 80), separation=60),
}
