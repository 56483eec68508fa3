"""The networks of relaxed weight sharing: their counts, their penalty, what becomes of them, which blocks are run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables import checkpoint
from trainables.cost import parameters
from trainables.data.dataset import Dataset
from trainables.models.shared_resnet import LEVELS, SharedResNet, SharedResNetConfig, angles, death_rates
from trainables.saved_model import load_model
from trainables.training import Training
from trainables.trial import TrialConfig

EIGHTEEN, THREE = (18, 17, 17), (3, 3, 3)
MIDDLE = ("middle",)


def small(**settings: Any) -> SharedResNetConfig:
    """A network with a few channels."""
    return SharedResNetConfig.from_dict({"blocks": [3, 2, 2], "channels": [4, 6, 8], "death_rate": 0.0, **settings})


def built(config: SharedResNetConfig, seed: int = 0) -> SharedResNet:
    """Its network, whose batch norms have seen some images."""
    torch.manual_seed(seed)
    model = config.build(input_shape=(3, 8, 8), outputs=5)
    model(torch.randn(16, 3, 8, 8), model.readout([len(level.blocks) for level in model.levels]))
    return model


def direct_distance(model: SharedResNet) -> Tensor:
    """The penalty as it is defined, one weight at a time."""
    total = torch.zeros(())
    for level in model.levels:
        if level.relaxed:
            for convolution in ("conv1", "conv2"):
                weights = list(level.weights(convolution))
                mean = torch.stack(weights).mean(0)
                for weight in weights:
                    total = total + ((weight - mean) ** 2).sum()
    return total


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sharing": "none", "blocks": EIGHTEEN}, 1_732_010),
        ({"sharing": "raw", "blocks": EIGHTEEN, "levels": MIDDLE}, 1_437_098),
        ({"sharing": "minimal", "blocks": EIGHTEEN, "levels": MIDDLE}, 1_434_026),
        ({"sharing": "raw", "blocks": EIGHTEEN}, 179_114),
        ({"sharing": "minimal", "blocks": EIGHTEEN}, 168_266),
        ({"sharing": "minimal", "blocks": THREE}, 168_266),
        ({"sharing": "none", "blocks": THREE}, 363_146),
        ({"sharing": "raw", "blocks": THREE}, 169_610),
    ],
)
def test_parameters_are_as_many_as_published(settings: dict[str, Any], expected: int) -> None:
    """Tables 1, 2 and 3; relaxed networks are counted when consolidated, and have a weight a block until then."""
    with torch.device("meta"):
        model = SharedResNetConfig(**settings).build(input_shape=(3, 32, 32), outputs=10)
        assert parameters(model) == expected
        if settings["sharing"] == "raw":
            config = SharedResNetConfig(**{**settings, "sharing": "relaxed"})
            relaxed = config.build(input_shape=(3, 32, 32), outputs=10)
            plain = dataclasses.replace(config, sharing="none").build(input_shape=(3, 32, 32), outputs=10)
            assert parameters(relaxed) == parameters(plain) > expected
            finished = config.finish(relaxed)
            assert finished is not None
            assert parameters(finished[1]) == expected


@pytest.mark.parametrize("levels", [LEVELS, MIDDLE, ("lower", "upper")])
def test_the_penalty_is_the_sum_of_squared_distances_to_the_means(levels: tuple[str, ...]) -> None:
    """In value and gradient, over the shared levels and no others."""
    model = built(small(sharing="relaxed", levels=levels))
    distance, direct = model.distance(), direct_distance(model)
    torch.testing.assert_close(distance, direct)
    weights = [parameter for name, parameter in model.named_parameters() if name.endswith(("conv1", "conv2"))]
    fused = torch.autograd.grad(distance, weights, allow_unused=True)
    plain = torch.autograd.grad(direct, weights, allow_unused=True)
    assert sum(gradient is not None for gradient in fused) == 2 * len(levels)
    for ours, theirs in zip(fused, plain, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


def test_the_penalty_pulls_to_the_mean_and_moves_the_mean_nowhere() -> None:
    """A step against its gradient shrinks every difference to the mean alike; the gradients of a set sum to zero."""
    model = built(small(sharing="relaxed"))
    level = model.levels[1]
    before = level.weights("conv1").detach().clone()
    model.distance().backward()
    gradient = level.conv1.grad
    assert gradient is not None
    torch.testing.assert_close(gradient.view_as(before).sum(0), torch.zeros_like(before[0]), atol=1e-6, rtol=0)
    with torch.no_grad():
        level.conv1 -= 0.1 * gradient
    after = level.weights("conv1").detach()
    torch.testing.assert_close(after.mean(0), before.mean(0))
    torch.testing.assert_close(after - after.mean(0), 0.8 * (before - before.mean(0)))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_consolidating_equal_weights_changes_no_bit(memory_format: torch.memory_format) -> None:
    """The consolidated network answers exactly what the relaxed one did, in either memory layout."""
    config = small(sharing="relaxed", blocks=[8, 8, 8], death_rate=0.5)
    model = built(config).to(memory_format=memory_format)  # type: ignore[call-overload]
    with torch.no_grad():
        for level in model.levels:
            for convolution in ("conv1", "conv2"):
                weights = level.weights(convolution)
                weights.copy_(weights[:1].clone().expand_as(weights))
    finished = config.finish(model)
    assert finished is not None
    images = torch.randn(7, 3, 8, 8).contiguous(memory_format=memory_format)
    with torch.inference_mode():
        assert torch.equal(finished[1].eval()(images), model.eval()(images))


def test_consolidation_keeps_means_and_leaves_the_rest() -> None:
    """Each set becomes its mean; levels that are not shared, padding blocks and batch norms stay as they were."""
    config = small(sharing="relaxed", levels=MIDDLE)
    model = built(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finished = config.finish(model)
    assert finished is not None
    kept, module = finished
    assert kept == dataclasses.replace(config, sharing="raw")
    after = module.state_dict()
    for convolution in ("conv1", "conv2"):
        name = f"levels.1.{convolution}"
        torch.testing.assert_close(after.pop(name), before.pop(name).view(2, 6, 6, 3, 3).mean(0))
    del before["pull"]
    assert before.keys() == after.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("sharing", ["none", "raw", "minimal"])
def test_nothing_else_is_consolidated(sharing: str) -> None:
    """Networks that are not relaxed have no penalty, nothing to inspect and nothing to finish."""
    config = small(sharing=sharing)
    model = built(config)
    assert config.finish(model) is None
    assert model.relaxed_sets() == {}
    assert float(model.distance()) == 0


def test_equal_weights_make_equal_networks_of_every_sharing() -> None:
    """Raw is what relaxed and unshared networks are whose blocks happen to have equal weights."""
    raw = built(small(sharing="raw"))
    images = torch.randn(4, 3, 8, 8)
    for sharing in ("none", "relaxed"):
        other = small(sharing=sharing).build(input_shape=(3, 8, 8), outputs=5)
        weights = dict(raw.state_dict())
        for number, level in enumerate(other.levels):
            for convolution in ("conv1", "conv2"):
                name = f"levels.{number}.{convolution}"
                weights[name] = weights[name].repeat(level.of_its_own, 1, 1, 1)
        other.load_state_dict(weights, strict=False)
        with torch.inference_mode():
            torch.testing.assert_close(other.eval()(images), raw.eval()(images))


def test_angles_are_those_of_every_pair() -> None:
    """In degrees, exact where they are small."""
    tilt = math.radians(1e-3)
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 5.0, 0.0], [math.cos(tilt), math.sin(tilt), 0.0]])
    assert angles(vectors).tolist() == pytest.approx([90.0, 1e-3, 90 - 1e-3], rel=1e-4)


def test_death_rates_rise_in_a_line_from_zero() -> None:
    """From the first block of the network to the last, padding blocks among them."""
    assert death_rates(5, 0.5) == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert death_rates(1, 0.5) == [0.0]
    model = SharedResNetConfig().build(input_shape=(3, 8, 8), outputs=2)
    rates = [block.death_rate for level in model.levels for block in level.blocks]
    assert rates == death_rates(54, 0.5)


def test_blocks_die_as_often_as_they_should_and_only_in_training() -> None:
    """Frequencies over 4,000 draws are within 5 standard deviations of the rates; evaluation runs all blocks."""
    torch.manual_seed(0)
    model = small(death_rate=0.6).build(input_shape=(3, 8, 8), outputs=2)
    rates = torch.tensor([block.death_rate for level in model.levels for block in level.blocks])
    drawn = torch.zeros(len(rates))
    starts = [0, 3, 6]
    for _ in range(4000):
        for start, numbers in zip(starts, model._drawn(), strict=True):
            drawn[[start + number for number in numbers]] += 1
    deviations = (rates * (1 - rates) / 4000).sqrt()
    assert ((drawn / 4000 - (1 - rates)).abs() <= 5 * deviations).all()
    assert list(model.eval()._drawn()) == [[0, 1, 2]] * 3


def test_a_dead_block_leaves_its_shortcut_and_evaluation_weighs_by_survival() -> None:
    """Against the definition, block by block (Huang et al. 2016, equations 2 and 5)."""
    model = built(small(death_rate=0.5)).eval()
    level = model.levels[0]
    x = torch.rand(2, 4, 8, 8)
    with torch.inference_mode():
        assert torch.equal(level(x, []), x)
        assert torch.equal(level(x, [1]), level.blocks[1](x, *level._weights()[1]))
        block, weights = level.blocks[2], level._weights()[2]
        weighed = block(x, *weights)
        block.death_rate = 0.0
        full = block(x, *weights)
        residual = torch.where(full > 0, full - x, torch.nan)  # the ReLU hides it elsewhere
        both = (full > 0) & (weighed > 0)
        rate = death_rates(9, 0.5)[2]
        torch.testing.assert_close((weighed - x)[both], (1 - rate) * residual[both])


def test_a_padding_block_that_is_left_out_halves_the_image_and_adds_empty_channels() -> None:
    """As does the shortcut of the one that is run."""
    level = built(small()).eval().levels[1]
    x = torch.rand(2, 4, 8, 8)
    with torch.inference_mode():
        out = level(x, [])
    assert torch.equal(out[:, :4], x[:, :, ::2, ::2])
    assert out.shape == (2, 6, 4, 4)
    assert not out[:, 4:].any()


def test_a_network_can_be_read_out_after_any_number_of_blocks() -> None:
    """After all it is itself, after fewer the first ones, after more the last one goes on."""
    model = built(small(sharing="raw")).eval()
    images = torch.rand(3, 3, 8, 8)
    assert model.readout((5, 2, 0)) == [[0, 1, 2, 2, 2], [0, 1], []]
    with torch.inference_mode():
        assert torch.equal(model(images, model.readout((3, 3, 3))), model(images))
        lower, middle, upper = model.representations(images)
        assert (lower.shape, middle.shape, upper.shape) == ((3, 4, 4, 8, 8), (3, 4, 6, 4, 4), (3, 4, 8, 2, 2))
        torch.testing.assert_close(model.head(upper[:, -1].mean((2, 3))), model(images))
        torch.testing.assert_close(model.head(upper[:, 1].mean((2, 3))), model(images, model.readout((3, 3, 1))))
        assert model(images, model.readout((9, 9, 9))).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": []}, "levels: need one or more of lower, middle, upper, each once"),
        ({"levels": ["middle", "middle"]}, "each once, got"),
        ({"levels": ["top"]}, "levels.0: need one of 'lower', 'middle', 'upper', got 'top'"),
        ({"channels": [8, 4, 8]}, "channels: need no fewer channels than in the level before"),
        ({"blocks": [3, 0, 3]}, "blocks.1: need a whole number >= 1 and <= 200, got 0"),
        ({"width": 129}, "width: need width x channels <= 8192, got 129 x"),
        ({"death_rate": 1.0}, "death_rate: need a number >= 0 and < 1, got 1.0"),
    ],
)
def test_a_config_that_breaks_rules_is_refused(settings: dict[str, Any], message: str) -> None:
    """With the rule and the value."""
    with pytest.raises(ValueError, match=message):
        SharedResNetConfig.from_dict(settings)


@pytest.fixture(name="train")
def _train(corners: Dataset, make_trial: Callable[..., TrialConfig]) -> Callable[..., Training]:
    def make(pull: dict[str, Any], **model: Any) -> Training:
        settings = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 10, "max_epochs": 6, "pull": pull}
        settings |= {"precision": "float32"}  # bfloat16 is too coarse for so few images
        trial = make_trial(**settings)
        trial = dataclasses.replace(trial, family="shared_resnet", model=small(**model))
        return Training(trial, corners, device=torch.device("cpu"))

    return make


def test_relaxed_training_ends_in_a_consolidated_model(train: Callable[..., Training], tmp_path: Path) -> None:
    """The angles fall below a degree, nothing is lost by consolidation, and what is saved has each weight once."""
    training = train({"start": 0.05, "end": 2.0}, sharing="relaxed")
    first = training.advance()
    assert first["train/pull"] == pytest.approx(0.05, rel=0.7)
    assert first["angle/largest"] == max(first[f"angle/{level}/conv{i}/largest"] for level in LEVELS for i in (1, 2))
    assert first["angle/all_below_1"] == 0
    while training.finished is None:
        last = training.advance()
    assert last["train/pull"] > 1
    assert last["train/distance"] < first["train/distance"]
    assert last["angle/largest"] < 1
    assert last["angle/all_below_1"] == 1
    assert last["finished/accuracy"] == pytest.approx(last["validation/accuracy"], abs=0.05)
    assert training.best_metrics["validation/accuracy"] == last["finished/accuracy"]
    model = load_model(checkpoint.write(tmp_path, training) / checkpoint.MODEL)
    assert model.config == small(sharing="raw")
    assert parameters(model.module) == training.best_metrics["model/parameters"] == last["finished/parameters"]
    assert parameters(model.module) < last["model/parameters"]


def test_an_adaptive_pull_makes_the_angles_follow_its_curve(train: Callable[..., Training]) -> None:
    """From too little it rises until they do, to within a factor of two from the middle of the training on."""
    pull = {"kind": "adaptive", "start": 1e-2, "end": 10.0, "angle": 2.0, "rate": 0.2}
    training = train(pull, sharing="relaxed")
    while training.finished is None:
        training.advance()
    largest = {step: metrics["angle/largest"] for step, metrics in training.history.items()}
    curve = {step: training.config.train.pull.curve(step / 6) for step in largest}
    assert largest[1] > 90
    assert all(curve[step] / 2 < largest[step] < 2 * curve[step] for step in (3, 5, 6))
    assert training.history[3]["train/pull"] > 4 * training.history[1]["train/pull"]


def test_an_adaptive_pull_and_dying_blocks_continue_exactly(train: Callable[..., Training], tmp_path: Path) -> None:
    """Interrupted after two steps of four and continued from the checkpoint, the weights are the same to the bit."""
    settings = {"kind": "adaptive", "start": 1e-3, "end": 1.0}
    whole = train(settings, sharing="relaxed", death_rate=0.5)
    for _ in range(4):
        whole.advance()
    interrupted = train(settings, sharing="relaxed", death_rate=0.5)
    for _ in range(2):
        interrupted.advance()
    continued = train(settings, sharing="relaxed", death_rate=0.5)
    continued.restore(checkpoint.read(checkpoint.write(tmp_path, interrupted)))
    for _ in range(2):
        continued.advance()
    assert continued.history[4]["train/pull"] == whole.history[4]["train/pull"]
    weights = continued.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())
