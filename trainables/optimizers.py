"""Update rules, and which parameters learn at which rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainables.config import nearest
from trainables.train_config import TrainConfig


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The update rule over the model's trainable parameters, in torch's fused form.

    Raises:
        ValueError: a name in `learning_rates` is no module of the model with parameters to train.
    """
    groups = parameter_groups(model, config.learning_rates, config.learning_rate)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            dampening=config.dampening,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    rule = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return rule(groups, lr=config.learning_rate, eps=config.epsilon, weight_decay=config.weight_decay, fused=True)


def parameter_groups(model: nn.Module, rates: Mapping[str, float], default: float) -> list[dict[str, Any]]:
    """Groups of trainable parameters by learning rate (`rate`): that of the innermost named module, or the default.

    Raises:
        ValueError: a name in `rates` is no module of the model with parameters to train.
    """
    members: dict[str, list[nn.Parameter]] = {module: [] for module in ("", *rates)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = [module for module in rates if name.startswith(f"{module}.")]
            members[max(inside, key=len, default="")].append(parameter)
    for module in rates:
        if not members[module]:
            names = [name for name, _ in model.named_modules() if name]
            raise ValueError(f"train.learning_rates: no module {module!r} to train; {nearest(module, names)}")
    return [
        {"params": parameters, "rate": rates.get(module, default)}
        for module, parameters in members.items()
        if parameters
    ]


def set_learning_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Gives every group its rate times the schedule's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * multiplier
