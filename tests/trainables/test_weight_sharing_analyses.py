"""Ablations and trajectories of networks that share weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from trainables.analysis.ablation import ablation
from trainables.analysis.trajectories import principal_components, smoothness, trajectories
from trainables.data.dataset import Dataset
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.models.shared_resnet import LEVELS, SharedResNetConfig
from trainables.saved_model import SavedModel, load_model, save_model
from trainables.trial import TrialConfig


@pytest.fixture(name="saved")
def _saved(corners: Dataset, make_trial: Callable[..., TrialConfig], tmp_path: Path) -> Callable[..., SavedModel]:
    def save(**model: Any) -> SavedModel:
        settings = {"blocks": [2, 2, 1], "channels": [2, 3, 4], "sharing": "raw", "death_rate": 0.0, **model}
        config = SharedResNetConfig.from_dict(settings)
        trial = dataclasses.replace(make_trial(), family="shared_resnet", model=config)
        torch.manual_seed(0)
        module = config.build(input_shape=corners.preprocessing.input_shape, outputs=corners.task.outputs)
        folder = tmp_path / "model"
        save_model(folder, trial=trial, dataset=corners, weights=module.state_dict(), step=1, metrics={})
        return load_model(folder)

    return save


def _shape(picture: bytes) -> tuple[int, ...]:
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.std() > 10  # something is drawn
    return decoded.shape


def test_ablation_scores_what_is_left(saved: Callable[..., SavedModel], corners: Dataset) -> None:
    """With none off the model's accuracy, with all of a level off the same however one got there."""
    model = saved()
    result = ablation([model, saved(sharing="none", death_rate=0.5)], corners)
    numbers = json.loads(json.dumps(result.numbers))
    assert (numbers["images"], numbers["metric"]) == (60, "accuracy")
    assert list(numbers["models"]) == ["raw", "not shared, stochastic depth"]
    assert sorted(result.pictures) == sorted(f"ablation-{level}" for level in LEVELS)
    for picture in result.pictures.values():
        assert len(_shape(picture)) == 3
    images = [image[0] for image in corners.test.images]
    accuracy = float((model.outputs(images).argmax(1).numpy() == corners.test.targets).mean())
    for level, blocks in zip(LEVELS, (2, 3, 2), strict=True):
        found = numbers["models"]["raw"][level]
        assert [len(found[one]) for one in ("top-to-bottom", "bottom-to-top", "single")] == [blocks + 1] * 2 + [blocks]
        assert found["top-to-bottom"][0] == found["bottom-to-top"][0] == pytest.approx(accuracy)
        assert found["top-to-bottom"][-1] == found["bottom-to-top"][-1]
        assert found["single"][-1] == found["top-to-bottom"][1]
        assert found["single"][0] == found["bottom-to-top"][1]


def test_models_of_one_kind_are_told_apart(saved: Callable[..., SavedModel], corners: Dataset) -> None:
    """By a number."""
    assert list(ablation([saved(), saved()], corners).numbers["models"]) == ["raw (1)", "raw (2)"]


def test_trajectories_go_through_every_block(saved: Callable[..., SavedModel], corners: Dataset) -> None:
    """A point for what a level starts from and one for each block; without drift their mean is zero at each block."""
    result = trajectories([saved()], corners)
    assert list(result.pictures) == ["trajectories"]
    rows, columns, _ = _shape(result.pictures["trajectories"])
    assert columns > rows
    found = json.loads(json.dumps(result.numbers))["models"]["raw"]
    for level, blocks in zip(LEVELS, (2, 3, 2), strict=True):
        plain, normalised = (np.array(found[level][name]["coordinates"]) for name in ("unnormalised", "normalised"))
        assert plain.shape == normalised.shape == (100, blocks + 1, 2)
        np.testing.assert_allclose(plain.mean((0, 1)), 0, atol=1e-3 * np.abs(plain).max())
        np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-3 * np.abs(normalised).max())
        assert -1 <= found[level]["normalised"]["smoothness"] <= 1
        first, second = found[level]["unnormalised"]["explained"]
        assert 1 >= first >= second >= 0


def test_principal_components_are_those_of_the_singular_values() -> None:
    """From inner products alone, up to the signs, which are ours."""
    points = np.random.default_rng(0).normal(size=(20, 7)) * np.arange(1, 8)
    points -= points.mean(0)
    coordinates, explained = principal_components(points @ points.T)
    u, s, _ = np.linalg.svd(points, full_matrices=False)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(u[:, :2] * s[:2]), atol=1e-9)
    np.testing.assert_allclose(explained, (s**2 / (s**2).sum())[:2])
    assert (coordinates.max(0) == np.abs(coordinates).max(0)).all()


def test_smoothness_is_the_cosine_between_successive_steps() -> None:
    """1 straight on, 0 round right angles, -1 back and forth; none where there is one step."""

    def of(*path: tuple[float, float]) -> float | None:
        points = np.array([path, path], dtype=np.float64)
        return smoothness(np.einsum("isd,jtd->isjt", points, points))

    assert of((0, 0), (1, 1), (3, 3), (4, 4)) == pytest.approx(1)
    assert of((0, 0), (1, 0), (1, 2), (4, 2)) == pytest.approx(0)
    assert of((0, 0), (1, 0), (0, 0)) == pytest.approx(-1)
    assert of((0, 0), (1, 0)) is None
    assert of((1, 0), (1, 0), (1, 0)) is None


def test_models_of_another_family_are_refused(corners: Dataset, saved: Callable[..., SavedModel]) -> None:
    """With the name of theirs."""
    other = dataclasses.replace(
        saved(), family="narrow_resnet", module=NarrowResNetConfig().build(input_shape=(1, 24, 24), outputs=3)
    )
    for analysis in (ablation, trajectories):
        with pytest.raises(ValueError, match="need models of the family shared_resnet, got one of narrow_resnet"):
            analysis([other], corners)
