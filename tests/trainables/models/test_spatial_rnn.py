"""Spatial RNNs against counts worked out by hand and the thesis's own sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from trainables.config import ConfigError
from trainables.cost import parameters
from trainables.models.spatial_rnn import ParameterMatch, SpatialRNNConfig
from trainables.optimizers import parameter_groups

MNIST = (1, 28, 28)
# Two directions of an LSTM of 16 units: four gates of inputs, states and two biases.
SQUARE_36 = 2 * (2 * 4 * 16 * (36 + 16 + 2))


def config(**settings: object) -> SpatialRNNConfig:
    """A config from plain data."""
    return SpatialRNNConfig.from_dict(settings)


def build(shape: tuple[int, int, int] = MNIST, outputs: int = 10, **settings: object) -> nn.Sequential:
    """The network for MNIST's images and classes."""
    torch.manual_seed(0)
    return config(**settings).build(input_shape=shape, outputs=outputs)


def sizes(model: nn.Module) -> list[tuple[int, int]]:
    """(inputs, outputs) of its fully connected layers, first to last."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [(module.in_features, module.out_features) for module in linear]


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"depth": 1}, 2 * (2 * 4 * 16 * (28 + 16 + 2)) + 65 * 10),
        ({"reshape": [36, 36]}, 785 * 1296 + SQUARE_36 + 65 * 10),
        ({"reshape": [54, 24]}, 785 * 1296 + 2 * 4 * 16 * (54 + 16 + 2 + 24 + 16 + 2) + 65 * 10),
        ({"reshape": [36, 36], "layer": "gru"}, 785 * 1296 + 3 * SQUARE_36 // 4 + 65 * 10),
        ({"reshape": [36, 36], "layer": "rnn"}, 785 * 1296 + SQUARE_36 // 4 + 65 * 10),
        # The second layer of each orientation reads both of the first one's directions.
        ({"reshape": [36, 36], "recurrent_layers": 2}, 785 * 1296 + SQUARE_36 + 2 * 2 * 4 * 16 * (32 + 18) + 65 * 10),
        ({"depth": 3, "reshape": [16, 16], "width": 1934}, 785 * 1934 + 1935 * 256 + 4 * 4 * 16 * (16 + 18) + 65 * 10),
        # In the middle: fully connected to the reshaped vector, sweep, fully connected again.
        ({"depth": 3, "position": 2, "reshape": [36, 36], "width": 50}, 785 * 1296 + SQUARE_36 + 65 * 50 + 51 * 10),
        # Every state of 32 + 32 steps in two directions is read out.
        ({"full_sequence": True}, 785 * 1024 + 4 * 4 * 16 * (32 + 18) + (2 * 16 * 64 + 1) * 10),
        # LeNet's convolutions leave 16 x 4 x 4 numbers.
        ({"network": "cnn"}, 26 * 6 + 151 * 16 + 257 * 1024 + 4 * 4 * 16 * (32 + 18) + 65 * 10),
        ({"network": "cnn", "depth": 1}, 26 * 6 + 151 * 16 + 4 * 4 * 16 * (64 + 18) + 65 * 10),
        ({"layer": "fc", "match_parameters": None}, 785 * 1024 + 1025 * 64 + 65 * 10),
        # Ten classes are the two directions' five units each.
        ({"depth": 0, "full_recurrent": True}, 2 * 4 * 5 * (28 + 5 + 2)),
        ({"depth": 1, "full_recurrent": True}, 4 * 4 * 16 * (28 + 18) + 2 * 4 * 5 * (16 + 5 + 2)),
    ],
)
def test_parameters_are_those_worked_out_by_hand(settings: dict[str, object], count: int) -> None:
    """Each network's layers, with their biases."""
    assert parameters(build(**settings)) == count


@pytest.mark.parametrize(
    ("settings", "widths", "match"),
    [
        # 785 w + (w + 1) 64 + 650 is nearest to 1,031,834 at w = 1215 (at 1214 it is 434 below).
        ({"reshape": [36, 36]}, [1215, 64], ParameterMatch(1_031_834, 1_032_249)),
        # 785 w + (w + 1) 10 is nearest to 12,426 at w = 16.
        ({"depth": 1}, [16], ParameterMatch(12_426, 12_730)),
        ({"depth": 1, "hidden_size": 1}, [1], ParameterMatch(546, 805)),
        # 785 w + (w + 1) 20 + 210 is nearest to 11,776 + 65 20 + 21 10 at w = 16.
        ({"depth": 2, "position": 1, "width": 20}, [16, 20], ParameterMatch(13_286, 13_110)),
    ],
)
def test_both_versions_have_nearly_equal_parameters(
    settings: dict[str, object], widths: list[int], match: ParameterMatch
) -> None:
    """The first layer of the fully connected version makes up for what the recurrent layer has."""
    for layer in ("lstm", "fc"):
        found = config(**settings, layer=layer).parameter_match(input_shape=MNIST, outputs=10)
        assert found == match
        assert found.difference == match.fully_connected - match.recurrent
    fully_connected = build(**settings, layer="fc")
    assert [outputs for _, outputs in sizes(fully_connected)[:-1]] == widths
    assert parameters(fully_connected) == match.fully_connected
    assert parameters(build(**settings)) == match.recurrent


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("unit", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("hidden_size", [16, 512])
def test_no_other_width_matches_better(network: str, unit: str, depth: int, hidden_size: int) -> None:
    """What is left over is at most half of what one unit costs: its weights from below, its bias, those above."""
    settings = {"network": network, "depth": depth, "hidden_size": hidden_size}
    match = config(**settings, layer=unit).parameter_match(input_shape=MNIST, outputs=10)
    reads, first = sizes(build(**settings, layer="fc", match_parameters=unit))[0]
    above = sizes(build(**settings, layer="fc", match_parameters=unit))[1][1]
    assert first > 1
    assert 2 * abs(match.difference) <= reads + 1 + above


def test_each_unit_is_compared_with_its_own_fully_connected_version() -> None:
    """Units differ in parameters; so do the versions that match them."""
    matches = [config(layer=unit).parameter_match(input_shape=MNIST, outputs=10) for unit in ("rnn", "gru", "lstm")]
    assert len({match.fully_connected for match in matches}) == 3
    unmatched = config(match_parameters=None).parameter_match(input_shape=MNIST, outputs=10)
    assert unmatched.fully_connected == parameters(build(layer="fc", match_parameters=None))
    assert unmatched.fully_connected != matches[2].fully_connected


@pytest.mark.parametrize(("side", "width"), [(16, 1934), (23, 1524), (32, 1094), (42, 784)])
def test_a_budget_gives_the_widths_of_the_thesis(side: int, width: int) -> None:
    """Table 4.1 keeps about two million parameters while the recurrent layer's input grows; within 1.5 percent."""
    model = build(depth=3, reshape=[side, side], parameter_budget=2_000_000)
    (_, first), (_, second), _ = sizes(model)
    assert second == side * side
    assert first == pytest.approx(width, rel=0.015)
    assert 2 * abs(parameters(model) - 2_000_000) <= 785 + side * side
    fully_connected = build(depth=3, reshape=[side, side], parameter_budget=2_000_000, layer="fc")
    assert 2 * abs(parameters(fully_connected) - 2_000_000) <= 785 + side * side


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (324, 4), (1, 1)])
def test_a_vector_is_reshaped_for_the_recurrent_layer(shape: tuple[int, int]) -> None:
    """The layer before it has rows x columns units, and rows and columns are swept as such."""
    model = build(reshape=shape, hidden_size=2)
    assert sizes(model)[0] == (784, shape[0] * shape[1])
    assert model.rnn.rows.unit.input_size == shape[1]
    assert model.rnn.columns.unit.input_size == shape[0]
    assert model(torch.zeros(3, *MNIST)).shape == (3, 10)


def test_at_the_first_position_the_image_itself_is_swept() -> None:
    """All channels of a row at a time, on the image or on the convolutions' features."""
    assert build(shape=(3, 20, 30), depth=2, position=1).rnn.rows.unit.input_size == 3 * 30
    features = build(network="cnn", depth=1).rnn
    assert features.input_shape == (16, 4, 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 1, "full_sequence": True, "full_recurrent": True},
        {"depth": 3, "full_recurrent": True, "layer": "gru", "recurrent_layers": 2},
        {"network": "cnn", "depth": 0, "full_recurrent": True, "layer": "rnn"},
        {"depth": 4, "position": 2, "full_sequence": True, "recurrent_layers": 2},
        {"depth": 3, "full_sequence": True, "layer": "fc"},
        {"initial_state": "normal"},
    ],
)
def test_variants_learn_everywhere(settings: dict[str, object]) -> None:
    """Each gives ten outputs an image, and a finite gradient to each parameter."""
    model = build(**settings)
    outputs = model(torch.randn(2, *MNIST))
    assert outputs.shape == (2, 10)
    outputs.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_modules_can_have_learning_rates_of_their_own() -> None:
    """`rnn` and `head` are names in every network with one recurrent layer (Table 4.8)."""
    model = build(depth=3, reshape=[8, 8])
    assert [name for name, _ in model.named_children()] == ["fc1", "fc2", "rnn", "head"]
    groups = parameter_groups(model, {"rnn": 2.0, "head": 0.5}, 1.0)
    counts = {group["rate"]: sum(parameter.numel() for parameter in group["params"]) for group in groups}
    assert counts[2.0] == parameters(model.rnn)
    assert counts[0.5] == 650
    names = [name for name, _ in build(depth=2, full_recurrent=True).named_children()]
    assert names == ["rnn1", "rnn2", "head"]


@pytest.mark.parametrize("layer", ["rnn", "gru", "lstm"])
def test_other_weights_can_be_put_in_for_one_call(layer: str) -> None:
    """Recurrent modules keep lists of their weights; validation puts the best weights in without copying them."""
    model, best = build(layer=layer).eval(), config(layer=layer).build(input_shape=MNIST, outputs=10).eval()
    images = torch.randn(2, *MNIST)
    with torch.inference_mode():
        before = model(images)
        # Rounding may differ with where the weights lie in memory.
        answers = functional_call(model, best.state_dict(), (images,))
        torch.testing.assert_close(answers, best(images), atol=1e-6, rtol=0)
        assert not torch.allclose(answers, before, atol=1e-3)
        torch.testing.assert_close(model(images), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth: need a hidden layer unless full_recurrent is true, got 0"),
        ({"depth": 2, "position": 3}, "position: need one of the 2 hidden layers, got 3"),
        ({"layer": "fc", "full_recurrent": True}, "full_recurrent: need layer rnn, gru or lstm"),
        ({"parameter_budget": 1000}, "parameter_budget: need a fully connected hidden layer whose width is free"),
        ({"depth": 1, "parameter_budget": 1000}, "parameter_budget"),
        ({"depth": 3, "parameter_budget": 1000, "full_recurrent": True}, "parameter_budget"),
        ({"layer": "ltsm"}, "did you mean 'lstm'?"),
        ({"hidden_size": 0}, "hidden_size: need a whole number >= 1 and <= 65536, got 0"),
        ({"reshape": [32, 0]}, r"reshape\.1: need a whole number >= 1 and <= 4096, got 0"),
        ({"depth": 101}, "depth: need .* <= 100, got 101"),
        ({"recurrent_layers": 11}, "recurrent_layers: need .* <= 10, got 11"),
        ({"width": 65_537}, "width: need .* <= 65536, got 65537"),
    ],
)
def test_what_makes_no_network_is_refused(settings: dict[str, object], message: str) -> None:
    """Each rule names the setting and the value."""
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_what_an_image_or_a_task_does_not_allow_is_refused() -> None:
    """LeNet's convolutions need 16 rows and columns; two directions share the outputs evenly."""
    assert build(shape=(1, 16, 16), network="cnn")(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    with pytest.raises(ValueError, match="at least 16 x 16, got 16 x 15"):
        build(shape=(1, 16, 15), network="cnn")
    with pytest.raises(ValueError, match="an even number of outputs, half of each direction; got 1"):
        build(outputs=1, full_recurrent=True)
    with pytest.raises(ValueError, match="no other version"):
        config(full_recurrent=True).parameter_match(input_shape=MNIST, outputs=10)
