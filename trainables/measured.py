"""What was measured while a model went through a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from trainables.tasks import Task


@final
class Measured:
    """Numbers of each image and of each batch, left on the device: only reading them waits for it."""

    def __init__(self) -> None:
        self._images: dict[str, list[Tensor]] = defaultdict(list)
        self._batches: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, images: Mapping[str, Tensor], batch: Mapping[str, Tensor] | None = None) -> None:
        """Adds what a task measured of a batch's images (see `Task.measure`), and scalars of the batch as a whole."""
        for name, values in images.items():
            self._images[name].append(values)
        for name, value in (batch or {}).items():
            self._batches[name].append(value)

    def is_finite(self, name: str) -> bool:
        """What was measured of that name has been a finite number so far. Waits for the device."""
        values = [*self._images.get(name, ()), *(value.view(1) for value in self._batches.get(name, ()))]
        return bool(torch.isfinite(torch.cat(values)).all())

    def read(self, split: str, task: Task) -> dict[str, float]:
        """The task's metrics of all these images, and means over batches, as `<split>/<name>`."""
        images = {name: torch.cat(values) for name, values in self._images.items()}
        metrics = task.summarize(images) if images else {}
        metrics |= {name: float(torch.stack(values).double().mean()) for name, values in self._batches.items()}
        return {f"{split}/{name}": value for name, value in metrics.items()}
