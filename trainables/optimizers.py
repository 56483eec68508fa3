"""Update rules, and which parameters learn at which rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import nn

from trainables.config import nearest
from trainables.train_config import TrainConfig


def _eager(method: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer's method without what torch has put around it for torch.compile, which never sees it here.

    That would be imported at its first call, by every worker anew: as long as importing torch itself takes.
    """
    eager: Callable[..., Any] = torch.no_grad()(inspect.unwrap(method))
    return eager


@final
class SGD(torch.optim.SGD):
    """Stochastic gradient descent."""

    add_param_group = _eager(torch.optim.SGD.add_param_group)
    state_dict = _eager(torch.optim.SGD.state_dict)
    load_state_dict = _eager(torch.optim.SGD.load_state_dict)
    step = _eager(torch.optim.SGD.step)


@final
class Adam(torch.optim.Adam):
    """Kingma and Ba 2015."""

    add_param_group = _eager(torch.optim.Adam.add_param_group)
    state_dict = _eager(torch.optim.Adam.state_dict)
    load_state_dict = _eager(torch.optim.Adam.load_state_dict)
    step = _eager(torch.optim.Adam.step)


@final
class AdamW(torch.optim.AdamW):
    """Loshchilov and Hutter 2019."""

    add_param_group = _eager(torch.optim.AdamW.add_param_group)
    state_dict = _eager(torch.optim.AdamW.state_dict)
    load_state_dict = _eager(torch.optim.AdamW.load_state_dict)
    step = _eager(torch.optim.AdamW.step)


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The update rule over the model's trainable parameters, in torch's fused form.

    Raises:
        ValueError: a name in `learning_rates` is no module of the model with parameters to train.
    """
    groups = parameter_groups(model, config.learning_rates, config.learning_rate)
    if config.optimizer == "sgd":
        return SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            dampening=config.dampening,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    rule = AdamW if config.optimizer == "adamw" else Adam
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
