"""PoseNet and PoseLSTM against the counts of the published programs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.config import ConfigError
from trainables.cost import parameters
from trainables.models.pose_net import PoseNet, PoseNetConfig
from trainables.tasks import PoseRegression
from trainables.trial import TrialConfig


def build(side: int = 80, **settings: Any) -> PoseNet:
    """The network for colour images."""
    torch.manual_seed(0)
    module = PoseNetConfig.from_dict(settings).build(input_shape=(3, side, side), outputs=7)
    assert isinstance(module, PoseNet)
    return module


@pytest.mark.parametrize(
    ("head", "whole", "heads"),
    [
        ("fc", 12_431_173, [2_171_015, 2_173_063, 2_113_543]),
        ("lstm", 16_053_061, [3_358_855, 3_360_903, 3_359_751]),
    ],
)
def test_parameters_are_those_of_the_published_programs(head: str, whole: int, heads: list[int]) -> None:
    """Of the whole, of the backbone (GoogLeNet without classifiers) and of each head, at 224 x 224 pixels."""
    with torch.device("meta"):
        model = build(224, head=head)
    assert parameters(model) == whole
    assert parameters(model.backbone) == 5_973_552
    assert [parameters(part) for part in model.heads.values()] == heads


def test_maps_have_the_shapes_of_googlenet() -> None:
    """Szegedy et al. 2015, table 1, after each stage."""
    with torch.device("meta"):
        maps, shapes = torch.empty(1, 3, 224, 224), {}
        for name, layer in build(224).backbone.named_children():
            shapes[name] = tuple((maps := layer(maps)).shape[1:])
    expected = {"stem": (192, 28, 28), "3b": (480, 28, 28), "4a": (512, 14, 14), "4d": (528, 14, 14)}
    expected |= {"4e": (832, 14, 14), "pool4": (832, 7, 7), "5b": (1024, 7, 7)}
    assert {name: shapes[name] for name in expected} == expected


@pytest.mark.parametrize(("head", "width", "side"), [("lstm", 0.125, 65), ("fc", 0.01, 97), ("lstm", 0.3, 128)])
def test_narrow_networks_answer_small_images(head: str, width: float, side: int) -> None:
    """At any width and size, each head gives a position and a unit quaternion, and the answer is the main head's."""
    model = build(side, head=head, width=width, hidden_size=5).eval()
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        poses, answer = model.poses(images), model(images)
    assert [tuple(pose.shape) for pose in poses.values()] == [(2, 7)] * 3
    for pose in poses.values():
        torch.testing.assert_close(pose[:, 3:].norm(dim=1), torch.ones(2))
    assert torch.equal(poses["main"], answer)


def test_the_lstm_heads_sweep_features_as_a_map_of_32_rows() -> None:
    """32 x 64 numbers before the main head's LSTMs, 32 x 32 before the auxiliary ones; 256 units in each direction."""
    with torch.device("meta"):
        heads = build(224).heads
    read = {name: [m.input_size for m in head.modules() if isinstance(m, nn.LSTM)] for name, head in heads.items()}
    assert read == {"first_auxiliary": [32, 32], "second_auxiliary": [32, 32], "main": [64, 32]}


def test_images_that_are_too_small_are_refused() -> None:
    """The auxiliary heads pool five rows of a map with one row for 16 pixels."""
    with pytest.raises(ValueError, match=r"at least 65 x 65, got 64 x 64"):
        build(64)


@pytest.mark.parametrize(("beta", "used"), [(None, 3.0), (20.0, 20.0)])
def test_the_loss_weights_heads_and_orientation(beta: float | None, used: float) -> None:
    """0.3, 0.3 and 1 times mean square of the position plus beta times that of the quaternion; beta is the dataset's
    own unless the model has one."""
    config = PoseNetConfig(width=0.05, hidden_size=3, beta=beta)
    torch.manual_seed(0)
    model = config.build(input_shape=(3, 80, 80), outputs=7).eval()
    images, targets = torch.randn(4, 3, 80, 80), torch.randn(4, 7)
    trial = TrialConfig.from_dict({"family": "pose_net", "data": {"name": "synthetic_scene"}})
    task = PoseRegression(beta=3.0)
    learned = config.training_loss(model, images, targets, task=task, train=trial.train, progress=0.0)

    def loss(pose: Tensor) -> Tensor:
        square = (pose - targets) ** 2
        return square[:, :3].mean() + used * square[:, 3:].mean()

    first, second, main = (loss(pose) for pose in model.poses(images).values())
    torch.testing.assert_close(learned.loss, 0.3 * first + 0.3 * second + main)
    assert torch.equal(learned.outputs, model(images))


def test_only_poses_can_be_asked() -> None:
    """A dataset with classes is a fault of the trial, not a crash of its first step."""
    with pytest.raises(ConfigError, match="pose"):
        TrialConfig.from_dict({"family": "pose_net", "data": {"name": "digits"}})
