"""What a model is asked to do: its number of outputs, its loss, its metrics and how an answer reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import Config, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Config):
    """One of k classes an image. Two classes share one logit (binary cross-entropy), more take one logit each."""

    kind: Literal["classification"] = setting("classification", help="tells the tasks apart in files")
    classes: tuple[str, ...] = setting(help="the classes' names, in the order of the targets")

    @property
    def outputs(self) -> int:
        """How many numbers the model gives an image."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of logits `[n, outputs]` against class indices `[n]`."""
        if self.outputs == 1:
            return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets.to(outputs.dtype))
        return functional.cross_entropy(outputs, targets)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Class probabilities `[n, k]` of logits `[n, outputs]`, in float32."""
        outputs = outputs.float()
        if self.outputs == 1:
            positive = outputs.sigmoid()
            return torch.cat([1 - positive, positive], dim=1)
        return outputs.softmax(dim=1)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss` and `accuracy` (a fraction): means over the `[n]` images, left on the device as scalars."""
        chosen = (outputs[:, 0] > 0).long() if self.outputs == 1 else outputs.argmax(dim=1)
        return {"loss": self.loss(outputs.float(), targets), "accuracy": (chosen == targets).double().mean()}

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One answer an image: the likeliest class and every class's probability."""
        return [
            {
                "class": self.classes[int(row.argmax())],
                "probabilities": dict(zip(self.classes, map(float, row), strict=True)),
            }
            for row in self.probabilities(outputs).cpu()
        ]


Task = Classification
TASKS: Mapping[str, type[Task]] = {"classification": Classification}


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task that plain data describes, told apart by its `kind`.

    Raises:
        ValueError: the kind is unknown, or the task's own rules are broken.
    """
    kind = values.get("kind")
    if kind not in TASKS:
        raise ValueError(f"need a task kind of {', '.join(TASKS)}, got {kind!r}")
    return TASKS[str(kind)].from_dict(values)
