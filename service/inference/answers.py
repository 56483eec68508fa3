"""What a model's outputs say about each image, and how that came about."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.tasks import Task


def answers(task: Task, outputs: Tensor, *, evolution: bool) -> list[dict[str, Any]]:
    """One answer an image, of outputs `[n, ...]` or of an evolution `[n, steps, ...]`.

    An evolution's has the answers after each step as `evolution`, and is the last of them itself.
    """
    if not evolution:
        return task.answers(outputs)
    steps = outputs.shape[1]
    each = task.answers(outputs.flatten(0, 1))
    return [{**each[end - 1], "evolution": each[end - steps : end]} for end in range(steps, len(each) + 1, steps)]


def tensors(task: Task, outputs: Tensor, *, evolution: bool) -> dict[str, Tensor]:
    """The outputs and what the task reads in them, by name; of an evolution each is `[n, steps, ...]`."""
    if not evolution:
        return {"outputs": outputs, **task.decode(outputs)}
    read = task.decode(outputs.flatten(0, 1))
    return {"outputs": outputs, **{name: one.reshape(*outputs.shape[:2], *one.shape[1:]) for name, one in read.items()}}
