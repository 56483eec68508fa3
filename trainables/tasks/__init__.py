"""The table of tasks: kind -> task. What a model is asked, its loss, its metrics and how an answer reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.tasks.classification import Classification
from trainables.tasks.panoptic import Panoptic
from trainables.tasks.pose import PoseRegression
from trainables.tasks.segmentation import Segmentation
from trainables.tasks.task import Better, Task

__all__ = [
    "METRICS",
    "TASKS",
    "Better",
    "Classification",
    "Panoptic",
    "PoseRegression",
    "Segmentation",
    "Task",
    "task_from_dict",
]

TASKS: Mapping[str, type[Task]] = {
    "classification": Classification,
    "panoptic": Panoptic,
    "pose": PoseRegression,
    "segmentation": Segmentation,
}

METRICS: Mapping[str, Better] = {
    f"validation/{name}": better for task in TASKS.values() for name, better in task.METRICS.items()
}
"""What models of any task are compared by; a name means the same in each."""


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task that plain data describes, told apart by its `kind`.

    Raises:
        ValueError: the kind is unknown, or the task's own rules are broken.
    """
    kind = values.get("kind")
    if kind not in TASKS:
        raise ValueError(f"need a task kind of {', '.join(TASKS)}, got {kind!r}")
    return TASKS[str(kind)].from_dict(values)
