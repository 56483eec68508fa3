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
    """The norm of every layer's gradient in each iteration of a step; a layer is a module with parameters of its own.

    Norms stay on the device: only reading them waits for it.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = {
            name: [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
            for name, module in model.named_modules()
        }
        self._layers = {name: parameters for name, parameters in trained.items() if parameters}
        self._parameters = [parameter for parameters in self._layers.values() for parameter in parameters]
        self._norms: list[Tensor] = []

    def add(self) -> None:
        """Notes the gradients as they are now; one that is not there counts as zero."""
        nothing = torch.zeros((), device=self._parameters[0].device)
        norms = iter(torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None]))
        self._norms.append(torch.stack([nothing if p.grad is None else next(norms) for p in self._parameters]))

    def read(self, before: Mapping[str, float]) -> dict[str, float]:
        """`gradient/<layer>`, the mean norm over the iterations; `gradient/<layer>/peak`, the largest since the start;
        `gradient/truncated`.

        Args:
            before: the metrics of the step before; empty if there was none.
        """
        squares = torch.split(
            torch.stack(self._norms).double().square(), [len(own) for own in self._layers.values()], dim=1
        )
        norms = {layer: own.sum(dim=1).sqrt() for layer, own in zip(self._layers, squares, strict=True)}
        means = {layer: float(norm.mean()) for layer, norm in norms.items()}
        peaks = {
            f"gradient/{layer}/peak": max(float(norm.max()), before.get(f"gradient/{layer}/peak", 0.0))
            for layer, norm in norms.items()
        }
        told = {f"gradient/{layer}": mean for layer, mean in means.items()}
        return told | peaks | {"gradient/truncated": float(is_truncated(list(means.values())))}


def is_truncated(norms: list[float]) -> bool:
    """Only the last layer learns: the gradients of all layers below it, in the order of the layers, have vanished."""
    *below, last = norms
    return bool(below) and last > 0 and max(below) <= VANISHED * last
