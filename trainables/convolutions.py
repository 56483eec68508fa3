"""Where the CPU's convolutions go wrong, so that training can go around it.

Both faults are in the gradient of the weights as oneDNN computes it (seen with torch 2.13 and AVX-512). They can stay
silent: a loss that looks healthy over weights that are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

VECTOR = 16  # float32 numbers in an AVX-512 register: the channels that oneDNN takes at a time


@final
@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution as a model runs it on one image."""

    rows: int
    columns: int
    in_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]


def channels_last_is_safe(convolutions: Sequence[Convolution]) -> bool:
    """No gradient writes beyond its memory in the channels-last layout.

    A strided 1x1 convolution of less than a vector of channels does, on two threads or more (oneDNN issue 6035): the
    process crashes, or some other tensor changes.
    """
    return not any(set(one.kernel) == {1} and max(one.stride) > 1 and one.in_channels < VECTOR for one in convolutions)


def bfloat16_is_safe(convolutions: Sequence[Convolution]) -> bool:
    """Every gradient is written as a whole in bfloat16.

    Where an image is narrower than the stride, the kernel's columns that meet no pixel keep whatever was in memory.
    """
    return not any(one.columns < one.stride[-1] and one.kernel[-1] > 1 for one in convolutions)
