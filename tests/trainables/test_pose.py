"""Pose regression: errors, answers, and a whole training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from trainables.augmentation import flip
from trainables.data.synthetic_scene import SyntheticScene
from trainables.measured import Measured
from trainables.tasks import PoseRegression, task_from_dict
from trainables.training import Training
from trainables.trial import TrialConfig

TASK = PoseRegression(beta=7.0)


def poses(images: int, seed: int) -> Tensor:
    """Random ones."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(images, 7, generator=generator)
    drawn[:, 3:] /= drawn[:, 3:].norm(dim=1, keepdim=True)
    return drawn


def test_errors_are_medians_of_distances_and_angles() -> None:
    """In whatever batches they come; angles are those that scipy finds between the rotations."""
    found, true = poses(8, 0), poses(8, 1)
    measured = Measured()
    for batch in (slice(0, 3), slice(3, 8)):
        measured.add(TASK.measure(found[batch], true[batch]))
    read = measured.read("test", TASK)
    one, other = (Rotation.from_quat(np.roll(pose[:, 3:].double().numpy(), -1, axis=1)) for pose in (found, true))
    degrees = np.degrees((one * other.inv()).magnitude())
    distances = np.linalg.norm((found - true)[:, :3].numpy(), axis=1)
    assert read["test/orientation_error"] == pytest.approx(np.median(degrees), abs=1e-3)
    assert read["test/position_error"] == pytest.approx(np.median(distances), abs=1e-5)
    assert read["test/loss"] == pytest.approx(float(TASK.loss(found, true)), rel=1e-5)
    assert set(read) == {f"test/{name}" for name in TASK.METRICS}


@given(st.floats(1e-4, 179), st.integers(0, 100))
def test_an_angle_is_found_whatever_the_quaternions_sign(degrees: float, seed: int) -> None:
    """Also a ten thousandth of a degree, where the arc cosine of a float32 product sees nothing."""
    true = poses(1, seed)
    half = math.radians(degrees) / 2
    turn = Rotation.from_rotvec([2 * half, 0, 0]) * Rotation.from_quat(np.roll(true[0, 3:].double().numpy(), -1))
    turned = true.double().clone()
    turned[0, 3:] = torch.from_numpy(np.roll(turn.as_quat(), 1))
    errors = [float(TASK.measure(sign.double(), true.double())["orientation_error"]) for sign in (turned, -turned)]
    assert errors == pytest.approx([degrees] * 2, rel=0.01, abs=2e-5)


def test_a_pose_that_is_not_a_number_has_no_error() -> None:
    """One NaN makes the metrics NaN: a median must not hide a training that went wrong."""
    found = poses(5, 0)
    found[2, 0] = math.nan
    scores = TASK.summarize(TASK.measure(found, poses(5, 1)))
    assert math.isnan(scores["position_error"])
    assert math.isnan(scores["loss"])


def test_answers_are_positions_and_unit_quaternions() -> None:
    """As plain numbers, also of a model that does not keep its quaternions at length 1."""
    outputs = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 2.0, 0.0]])
    assert TASK.answers(outputs) == [{"position": [1.0, 2.0, 3.0], "orientation": [0.0, 0.0, 1.0, 0.0]}]
    assert task_from_dict(TASK.to_dict()) == TASK


def test_poses_are_not_mirrored() -> None:
    """Asking for flips is an error that says so."""
    with pytest.raises(ValueError, match=r"train\.flips: need none for poses"):
        flip(torch.zeros(2, 3, 4, 4), poses(2, 0), "both", task=TASK, generator=torch.Generator())


def test_pose_lstm_learns_where_cameras_are(tmp_path: Path) -> None:
    """A narrow one comes clearly below the errors of answering the mean pose, on photographs not trained on."""
    data = SyntheticScene(image_size=65, train=300, validation=60, test=100)
    values = {
        "family": "pose_net",
        "model": {"width": 0.125, "hidden_size": 16},
        "train": {"learning_rate": 2e-3, "batch_size": 20, "max_epochs": 9, "schedule": {"kind": "cosine"}},
        "data": data.to_dict(),
    }
    dataset = data.load(tmp_path)
    training = Training(TrialConfig.from_dict(values), dataset, device=torch.device("cpu"))
    while training.finished is None:
        metrics = training.advance()
    true = torch.from_numpy(np.array(dataset.test.targets))
    mean = torch.from_numpy(dataset.train.targets.mean(axis=0)).expand_as(true)
    guessed = dataset.task.summarize(dataset.task.measure(mean, true))
    assert metrics["test/position_error"] < 0.8 * guessed["position_error"]
    assert metrics["test/orientation_error"] < 0.9 * guessed["orientation_error"]
