"""Which pixels of an image belong to the object that it asks about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import setting
from trainables.tasks.run_lengths import run_lengths
from trainables.tasks.task import Better, Task


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation(Task):
    """Object or ground, pixel by pixel: two logits each. Targets are masks of 0 and 1, `[n, h, w]`.

    The focal loss (Lin et al. 2017, equation 4) makes little of the many pixels that are plainly ground; C-RBP's
    models are trained by it (Linsley et al. 2020). Scores are of all pixels of a split together.
    """

    METRICS: ClassVar[Mapping[str, Better]] = {
        "f1": "max",
        "iou": "max",
        "accuracy": "max",
        "balanced_accuracy": "max",
        "precision": "max",
        "recall": "max",
        "loss": "min",
    }
    TARGET: ClassVar[str] = "|u1"

    kind: Literal["segmentation"] = setting("segmentation", help="tells the tasks apart in files")
    covers: str = setting("object", help="what the mask covers")
    focus: float = setting(2.0, at_least=0, help="of the focal loss: the exponent; 0: plain cross-entropy")

    def target_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """One number a pixel."""
        return input_shape[1:]

    @property
    def outputs(self) -> int:
        """Two logits a pixel: ground and object."""
        return 2

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean focal loss over all pixels, in nats, of logits `[n, 2, h, w]` against masks `[n, h, w]`."""
        return self._losses(outputs, targets).mean()

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`, and how many pixels (shares of the image) are rightly and wrongly called object and ground."""
        called, is_object = outputs[:, 1] > outputs[:, 0], targets > 0
        counts = {
            "true_positives": called & is_object,
            "false_positives": called & ~is_object,
            "false_negatives": ~called & is_object,
            "true_negatives": ~called & ~is_object,
        }
        shares = {name: pixels.flatten(1).float().mean(dim=1) for name, pixels in counts.items()}
        return {"loss": self._losses(outputs.float(), targets).flatten(1).mean(dim=1), **shares}

    def summarize(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Scores of the object class over all pixels; one that would divide nothing by nothing is 0."""
        mean = {name: float(value.double().mean()) for name, value in values.items()}
        hit, false, missed = mean["true_positives"], mean["false_positives"], mean["false_negatives"]
        recall, specificity = _share(hit, missed), _share(mean["true_negatives"], false)
        return {
            "f1": _share(2 * hit, false + missed),
            "iou": _share(hit, false + missed),
            "accuracy": hit + mean["true_negatives"],
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": _share(hit, false),
            "recall": recall,
            "loss": mean["loss"],
        }

    def decode(self, outputs: Tensor) -> dict[str, Tensor]:
        """`mask` `[n, h, w]`: each pixel's probability of being part of the object."""
        return {"mask": outputs.float().softmax(dim=1)[:, 1]}

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One answer an image: the mask at probability 1/2 as `run_lengths`, and the share of the image it covers."""
        masks = (outputs[:, 1] > outputs[:, 0]).cpu()
        return [
            {
                "covers": self.covers,
                "share": float(mask.float().mean()),
                "mask": run_lengths(mask),
            }
            for mask in masks
        ]

    def mirror(self, targets: Tensor, chosen: Tensor, axis: int) -> Tensor:
        """Masks are mirrored as their images are."""
        return torch.where(chosen.view(-1, 1, 1), targets.flip(axis), targets)

    def marked(self, target: Any) -> Any:
        """The object."""
        return target > 0

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of each pixel, `[n, h, w]`."""
        cross_entropy = functional.cross_entropy(outputs, targets.long(), reduction="none")
        return (1 - torch.exp(-cross_entropy)).pow(self.focus) * cross_entropy


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest else 0.0
