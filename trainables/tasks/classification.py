"""Which of several classes an image belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import setting
from trainables.tasks.task import Better, Task


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Task):
    """One of k classes an image. Two classes share one logit (binary cross-entropy), more take one logit each."""

    METRICS: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "loss": "min"}
    TARGET: ClassVar[str] = "<i8"

    kind: Literal["classification"] = setting("classification", help="tells the tasks apart in files")
    classes: tuple[str, ...] = setting(help="the classes' names, in the order of the targets")

    @property
    def outputs(self) -> int:
        """How many logits the model gives an image."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of logits `[n, outputs]` against class indices `[n]`."""
        return self._losses(outputs, targets, "mean")

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Class probabilities `[n, k]` of logits `[n, outputs]`, in float32."""
        outputs = outputs.float()
        if self.outputs == 1:
            positive = outputs.sigmoid()
            return torch.cat([1 - positive, positive], dim=1)
        return outputs.softmax(dim=1)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`, and `accuracy`: whether (1 or 0) the likeliest class is the right one."""
        chosen = (outputs[:, 0] > 0).long() if self.outputs == 1 else outputs.argmax(dim=1)
        return {"loss": self._losses(outputs.float(), targets, "none"), "accuracy": (chosen == targets).float()}

    def decode(self, outputs: Tensor) -> dict[str, Tensor]:
        """`probabilities` `[n, k]` of the classes."""
        return {"probabilities": self.probabilities(outputs)}

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One answer an image: the likeliest class and every class's probability."""
        return [
            {"class": self.classes[row.index(max(row))], "probabilities": dict(zip(self.classes, row, strict=True))}
            for row in self.probabilities(outputs).tolist()
        ]

    def caption(self, target: Any) -> str:
        """The class's name."""
        return self.classes[int(target)]

    def _losses(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "none"]) -> Tensor:
        if self.outputs == 1:
            wanted = targets.to(outputs.dtype)
            return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), wanted, reduction=reduction)
        return functional.cross_entropy(outputs, targets, reduction=reduction)
