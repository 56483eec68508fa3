"""Update rules and groups of parameters."""

from __future__ import annotations

import pytest
import torch

from trainables.config import ConfigError
from trainables.models.narrow_resnet import NarrowResNet, NarrowResNetConfig
from trainables.optimizers import build_optimizer, parameter_groups, set_learning_rates
from trainables.train_config import TrainConfig


@pytest.fixture(name="model")
def _model() -> NarrowResNet:
    return NarrowResNetConfig(channels=(2, 4, 4, 4)).build(input_shape=(1, 32, 32), outputs=1)


def test_the_innermost_named_module_decides(model: NarrowResNet) -> None:
    """Every trainable parameter is in one group, that of the longest name which holds it."""
    groups = parameter_groups(model, {"blocks": 0.1, "blocks.1": 0.2, "head": 0.3}, 0.4)
    rates = {id(parameter): group["rate"] for group in groups for parameter in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {rates[id(parameter)] for parameter in model.blocks[1].parameters()} == {0.2}
    assert {rates[id(parameter)] for parameter in model.blocks[0].parameters()} == {0.1}
    assert {rates[id(parameter)] for parameter in model.head.parameters()} == {0.3}
    assert {rates[id(parameter)] for parameter in model.stem.parameters()} == {0.4}


def test_frozen_parameters_are_left_out() -> None:
    """What does not train has no place in the optimizer."""
    model = NarrowResNetConfig(channels=(2, 4, 4, 4), residual=False).build(input_shape=(1, 32, 32), outputs=1)
    (group,) = parameter_groups(model, {}, 0.1)
    assert {id(parameter) for parameter in group["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
    with pytest.raises(ValueError, match=r"no module 'blocks\.2\.shortcut' to train"):
        parameter_groups(model, {"blocks.2.shortcut": 0.1}, 0.1)


def test_an_unknown_module_is_named_with_the_nearest(model: NarrowResNet) -> None:
    """A name that is no module is an error; a part of a name is none either."""
    with pytest.raises(ValueError, match=r"train\.learning_rates: no module 'haed' to train; did you mean 'head'"):
        parameter_groups(model, {"haed": 0.1}, 0.1)
    with pytest.raises(ValueError, match="no module 'block' to train"):
        parameter_groups(model, {"block": 0.1}, 0.1)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_rate_of_every_group_follows_the_schedule(name: str, model: NarrowResNet) -> None:
    """A multiplier changes all rates and not their proportions."""
    optimizer = build_optimizer(TrainConfig(optimizer=name, learning_rate=0.2, learning_rates={"head": 0.1}), model)
    set_learning_rates(optimizer, 0.5)
    set_learning_rates(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.025])


@pytest.mark.parametrize(
    ("settings", "peer"),
    [
        ({"optimizer": "adam", "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
        ({"optimizer": "adam", "epsilon": 1.0}, lambda p: torch.optim.Adam(p, lr=0.01, eps=1.0)),
        ({"optimizer": "adamw", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
        (
            {"optimizer": "sgd", "weight_decay": 0.1, "dampening": 0.2},
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.2, weight_decay=0.1),
        ),
        (
            {"optimizer": "sgd", "nesterov": True},
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
        ),
    ],
    ids=["adam", "epsilon", "adamw", "sgd", "nesterov"],
)
def test_the_settings_reach_torch(settings: dict, peer: object) -> None:
    """Three updates are those of torch's plain optimizers, to float32 rounding."""
    torch.manual_seed(0)
    mine, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(mine.state_dict())
    pairs = [
        (mine, build_optimizer(TrainConfig(learning_rate=0.01, **settings), mine)),
        (theirs, peer(theirs.parameters())),
    ]
    x = torch.randn(8, 5)
    for model, optimizer in pairs:
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(mine.weight, theirs.weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("settings", [{"momentum": 0.0}, {"dampening": 0.1}])
def test_nesterov_needs_momentum_without_dampening(settings: dict) -> None:
    """The rule of torch's SGD is checked before anything runs."""
    with pytest.raises(ConfigError, match="nesterov: needs momentum > 0 and dampening 0"):
        TrainConfig(optimizer="sgd", nesterov=True, **settings)
