"""A split's images and targets, ready to be gathered on the device that trains on them."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from trainables.data.dataset import Split


@final
class Batches:
    """Gathers batches of a split without worker processes.

    A split that takes up to half of a GPU's free memory is copied there once; else, and on the CPU, batches are read
    from the memory map. Images stay uint8 until the model's preprocessing normalises a batch.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self.split, self.device = split, device
        self._resident: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda" and split.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
            # np.array copies: a tensor over a read-only memory map would be one that must not be written to.
            self._resident = (
                torch.from_numpy(np.array(split.images)).to(device),
                torch.from_numpy(np.array(split.targets)).to(device),
            )

    def __len__(self) -> int:
        return len(self.split)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 `[n, c, h, w]` and targets `[n]` at int64 indices `[n]`, all of them on the device."""
        if self._resident is not None:
            images, targets = self._resident
            return images[indices], targets[indices]
        rows = indices.cpu().numpy()
        images, targets = torch.from_numpy(self.split.images[rows]), torch.from_numpy(self.split.targets[rows])
        return images.to(self.device), targets.to(self.device)
