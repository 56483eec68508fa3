"""Means of metrics over the batches of a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor


@final
class Means:
    """Means over images, summed on the device: only reading them waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    def add(self, metrics: Mapping[str, Tensor], images: int) -> None:
        """Adds what was measured over a batch (scalars, means over its images)."""
        for name, mean in metrics.items():
            total = mean.double() * images
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._images += images

    def is_finite(self, name: str) -> bool:
        """The metric has been a finite number in every batch so far. Waits for the device."""
        return bool(torch.isfinite(self._sums[name]))

    def read(self, split: str) -> dict[str, float]:
        """The means so far, as `<split>/<name>`."""
        return {f"{split}/{name}": float(total) / self._images for name, total in self._sums.items()}
