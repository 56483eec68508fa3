"""All that continues a training, as tensors and numbers apart from any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What continues a training exactly; tensors are on the CPU and shared with nobody."""

    trial: Mapping[str, Any]
    """`TrialConfig.to_dict()` of the trial that was trained."""
    step: int
    history: Mapping[int, Mapping[str, float]]
    """The metrics of each step that was done."""
    best_step: int | None
    best_metrics: Mapping[str, float]
    weights: Mapping[str, Tensor]
    """The module's state dict."""
    optimizer: Mapping[str, Tensor]
    """By `<number of the parameter>.<name>`, as in `3.exp_avg`."""
    best_weights: Mapping[str, Tensor]
    """The module's state dict at `best_step`; empty while there is none."""
    kept: Mapping[str, Any]
    """The config of the module that they belong to: another one than the trial's once its family finished it."""
    lineage: Sequence[Mapping[str, Any]] = ()
    """Whose weights these were before, oldest first, where they were copied from another trial: `source` (its id), the
    last `step` there, and the `trial` that was trained until then. Steps after the last one are this trial's own."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the newest step; empty before the first."""
        return self.history.get(self.step, {})


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, in the plain memory layout."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def laid_out_as(like: Tensor, value: Tensor) -> Tensor:
    """A copy on the same device and in the same memory layout, on which the order of sums may depend."""
    if like.shape != value.shape:
        return value.to(like.device, copy=True)
    return torch.empty_like(like, dtype=value.dtype).copy_(value)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, as `TrainingState.optimizer`."""
    remembered: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return copies(
        {
            f"{number}.{name}": value
            for number, of_one in remembered.items()
            for name, value in of_one.items()
            if isinstance(value, Tensor)
        }
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives an optimizer over the same parameters what `optimizer_tensors` took."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        remembered.setdefault(int(number), {})[name] = laid_out_as(parameters[int(number)], value)
    optimizer.load_state_dict({"state": remembered, "param_groups": optimizer.state_dict()["param_groups"]})
