"""What a task is: what a model is asked about an image, and how its answers are scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from trainables.config import Config

Better = Literal["max", "min"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Config):
    """Base of every task. Each has a `kind` that tells it apart in files, and is a row of the table (`TASKS`)."""

    METRICS: ClassVar[Mapping[str, Better]]
    """What `summarize` gives and whether more or less of it is better; the first is what trials are compared by."""

    kind: str
    """The task's name in the table; each task declares its own."""
    TARGET: ClassVar[str]
    """The NumPy type of an image's target, as `<i8`."""

    def target_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of the target of one image `(c, h, w)`: by default a single number."""
        return ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers a model gives an image, or each of its pixels."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training minimises, a scalar: the mean over images of `measure`'s `loss`."""

    @abstractmethod
    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Numbers of each image, `[n]` or `[n, k]`, left on the device: `loss`, and whatever else `summarize` needs."""

    def summarize(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The metrics of a whole split from all that `measure` said of its images: by default, means."""
        return {name: float(value.double().mean()) for name, value in values.items()}

    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, Tensor]:
        """What a model's outputs mean, as float32 tensors by name, such as `probabilities` `[n, k]`."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One answer an image, as plain data."""

    def mirror(self, targets: Tensor, chosen: Tensor, axis: int) -> Tensor:
        """Targets of images of which those `chosen` (bool `[n]`) are mirrored along an axis: -2 rows, -1 columns."""
        return targets

    def caption(self, target: Any) -> str:
        """A target in a word, for pictures of the data; empty where it has none."""
        return ""

    def marked(self, target: Any) -> Any:
        """Which pixels, bool `[h, w]`, pictures of the data tint; None: the target is not of pixels."""
        return None
