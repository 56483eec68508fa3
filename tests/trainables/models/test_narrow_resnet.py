"""Narrow ResNets against the published counts and shapes."""

from __future__ import annotations

import pytest
import torch

from trainables.config import ConfigError
from trainables.models.narrow_resnet import Block, NarrowResNet, NarrowResNetConfig


def build(**config: object) -> NarrowResNet:
    """The network for grey images and one logit."""
    return NarrowResNetConfig.from_dict(config).build(input_shape=(1, 150, 150), outputs=1)


@pytest.mark.parametrize(
    ("channels", "residual", "count"),
    [
        ((8, 16, 16, 16), True, 30_409),
        ((16, 32, 32, 32), True, 119_697),
        ((24, 48, 48, 128), True, 687_305),
        ((64, 128, 256, 512), True, 11_170_753),
        ((16, 32, 32, 32), False, 119_697),
    ],
)
def test_the_published_numbers_of_parameters(channels: tuple[int, ...], residual: bool, count: int) -> None:
    """One grey input channel and one logit; without residual additions the count stays the same."""
    assert sum(parameter.numel() for parameter in build(channels=channels, residual=residual).parameters()) == count


def test_the_shapes_of_the_features() -> None:
    """150 x 150 becomes 38 after the stem, then 38, 19, 10 and 5."""
    model = build().eval()
    shapes = []
    x = model.stem(torch.zeros(2, 1, 150, 150))
    shapes.append(tuple(x.shape[1:]))
    for number, block in enumerate(model.blocks):
        x = block(x)
        if number % 2 == 1:
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 38, 38), (16, 38, 38), (32, 19, 19), (32, 10, 10), (32, 5, 5)]
    assert model(torch.zeros(2, 1, 150, 150)).shape == (2, 1)


def test_residual_additions_can_be_left_out() -> None:
    """Equal weights answer differently without the shortcut, whose projections then take no part in training."""
    torch.manual_seed(0)
    with_shortcut, without = build(), build(residual=False)
    without.load_state_dict(with_shortcut.state_dict())
    x = torch.randn(2, 1, 64, 64)
    assert not torch.allclose(with_shortcut.eval()(x), without.eval()(x))
    without.train()(x).sum().backward()
    idle = {name for name, parameter in without.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in without.named_parameters() if ".shortcut." in name}
    assert all(not parameter.requires_grad for name, parameter in without.named_parameters() if name in idle)


def test_convolutions_start_kaiming_normal_by_fan_out() -> None:
    """Standard deviation sqrt(2 / (out_channels * 9)) within 6 sigma of the sample's, batch norms at 1 and 0."""
    torch.manual_seed(0)
    block = build(channels=[64, 128, 256, 512]).blocks[7]
    assert isinstance(block, Block)
    weight, norm = block.body[3].weight, block.body[4]
    n = weight.numel()
    assert float(weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=6 / (2 * n) ** 0.5)
    assert bool((norm.weight == 1).all())
    assert bool((norm.bias == 0).all())


@pytest.mark.parametrize("channels", [[16, 32, 32], [16, 32, 32, 0], "16"])
def test_illegal_channels_are_refused(channels: object) -> None:
    """Four positive whole numbers are needed."""
    with pytest.raises(ConfigError, match="channels"):
        NarrowResNetConfig.from_dict({"channels": channels})


@pytest.mark.parametrize(("width", "widened"), [(0.5, (8, 16, 16, 16)), (1.5, (24, 48, 48, 48)), (0.01, (1, 1, 1, 1))])
def test_width_scales_every_stage(width: float, widened: tuple[int, ...]) -> None:
    """Half of nRN18 is snRN18; no stage loses its last channel."""
    config = NarrowResNetConfig(width=width)
    assert config.widened == widened
    same = NarrowResNetConfig.from_dict({"channels": widened}).build(input_shape=(1, 64, 64), outputs=1)
    shapes = [parameter.shape for parameter in config.build(input_shape=(1, 64, 64), outputs=1).parameters()]
    assert shapes == [parameter.shape for parameter in same.parameters()]


def test_width_has_an_end() -> None:
    """What is widened beyond what a machine can hold is refused, by the setting's bound and by the product's."""
    assert NarrowResNetConfig(width=8192 / 32).widened[-1] == 8192
    for width in (8193 / 32, 1e9):
        with pytest.raises(ConfigError, match=r"width: need .*<= 8192"):
            NarrowResNetConfig(width=width)
