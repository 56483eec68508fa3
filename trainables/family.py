"""What a model family is: a frozen config that can build its module."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from trainables.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyConfig(Config):
    """Base of every family's config. It must live outside `models/`, whose files know nothing of each other."""

    @abstractmethod
    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> nn.Module:
        """The module, freshly initialised from torch's global random generator.

        Args:
            input_shape: (channels, rows, columns) of one input image.
            outputs: numbers a model gives an image; the task says how many it needs.

        Raises:
            ValueError: the model cannot take inputs of this shape.
        """
