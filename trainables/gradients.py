"""Gradients layer by layer while a model trains: how large they get, where they settle, and which layers get none.

O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps", section 4.5 (table 4.7, figure 4.12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

VANISHED = 1e-6
"""Of the last layer's gradient: a layer that gets less than this share of it learns nothing beside it."""


@final
class Gradients:
    """How large every layer's gradient is in each iteration of a step; a layer is a module with parameters of its own.

    The norm tells how far a step moves the layer; the mean absolute value, which layers of any size have alike, is what
    the thesis gives. Both stay on the device: only reading them waits for it.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = {
            name: [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
            for name, module in model.named_modules()
        }
        self._layers = {name: parameters for name, parameters in trained.items() if parameters}
        self._parameters = [parameter for parameters in self._layers.values() for parameter in parameters]
        self._norms: list[Tensor] = []
        """An iteration each: `[2, parameters]`, sums of absolute values and norms."""

    def add(self) -> None:
        """Notes the gradients as they are now; one that is not there counts as zero."""
        nothing = torch.zeros((), device=self._parameters[0].device)
        given = [p.grad for p in self._parameters if p.grad is not None]
        orders = [iter(torch._foreach_norm(given, order)) for order in (1, 2)]
        norms = [nothing if p.grad is None else next(order) for order in orders for p in self._parameters]
        self._norms.append(torch.stack(norms).view(2, -1))

    def read(self, before: Mapping[str, float]) -> dict[str, float]:
        """`gradient/<layer>`, the mean norm over the iterations; `gradient/<layer>/mean_absolute`, that of the absolute
        values; of either the largest since the start, `/peak`; `gradient/truncated`.

        Args:
            before: the metrics of the step before; empty if there was none.
        """
        measured: dict[str, Tensor] = {}
        of_layers = torch.split(torch.stack(self._norms).double(), [len(own) for own in self._layers.values()], dim=2)
        for (layer, parameters), own in zip(self._layers.items(), of_layers, strict=True):
            sums, norms = own.unbind(dim=1)
            measured[f"gradient/{layer}"] = norms.square().sum(dim=1).sqrt()
            measured[f"gradient/{layer}/mean_absolute"] = sums.sum(dim=1) / sum(p.numel() for p in parameters)
        means = {name: float(values.mean()) for name, values in measured.items()}
        peaks = {
            f"{name}/peak": max(float(values.max()), before.get(f"{name}/peak", 0.0))
            for name, values in measured.items()
        }
        truncated = is_truncated([means[f"gradient/{layer}"] for layer in self._layers])
        return means | peaks | {"gradient/truncated": float(truncated)}


def is_truncated(norms: list[float]) -> bool:
    """Only the last layer learns: the gradients of all layers below it, in the order of the layers, have vanished."""
    *below, last = norms
    return bool(below) and last > 0 and max(below) <= VANISHED * last
