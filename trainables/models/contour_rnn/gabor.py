"""The bank of Gabor filters that the contour networks look through, from its formula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORIENTATIONS = 12
SIDE = 7
SIGMA, WAVELENGTH, ASPECT = 2.8, 3.5, 0.3


def gabor_bank(filters: int, channels: int) -> Tensor:
    """`filters` filters `[filters, channels, 7, 7]` for images of so many channels (each counts alike).

    The published 25: twelve orientations 15 degrees apart with the phase 0, the same twelve with the phase 90 radians
    (degrees were meant, but so are the published networks), each cut to a disc, then of mean zero and length one; and
    the disc itself over its mean. Of fewer filters the first are taken, of more the bank repeats.
    """
    with torch.device("cpu"):  # hundreds of small steps, each far slower on the meta device
        bank = torch.stack(_bank())
    repeats = -(-filters // len(bank))
    chosen = bank.repeat(repeats, 1, 1)[:filters].float().to(torch.get_default_device())
    return chosen.unsqueeze(1).repeat(1, channels, 1, 1) / channels


def _bank() -> list[Tensor]:
    axis = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    disc = (x.square() + y.square() <= (SIDE // 2) ** 2).double()
    bank = []
    for phase in (0.0, 90.0):
        for number in range(ORIENTATIONS):
            theta = math.radians(90 - 180 / ORIENTATIONS * number)
            along = x * math.cos(theta) + y * math.sin(theta)
            across = -x * math.sin(theta) + y * math.cos(theta)
            envelope = torch.exp(-(along.square() + (ASPECT * across).square()) / (2 * SIGMA**2))
            wave = disc * envelope * torch.cos(2 * math.pi * along / WAVELENGTH + phase)
            wave = wave - wave.mean()
            bank.append(wave / wave.norm())
    bank.append(disc / disc.mean())
    return bank
