"""What a user's own training loop reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainables.data.dataset import Split


class Pixels(Dataset[tuple[Tensor, int]]):
    """A split as a user's dataset: one normalised image at a time."""

    def __init__(self, split: Split, mean: float, std: float) -> None:
        self.split, self.mean, self.std = split, mean, std

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.tensor(self.split.images[index], dtype=torch.float32)
        return (image / 255 - self.mean) / self.std, int(self.split.targets[index])
