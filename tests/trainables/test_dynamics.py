"""Recurrent networks run far beyond their training."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from trainables.analysis.analyses import ANALYSES
from trainables.analysis.dynamics import Run, _appeared, _projected, _run, dynamics
from trainables.data.dataset import Dataset
from trainables.data.digits import Digits
from trainables.data.pathfinder.config import Pathfinder
from trainables.models.contour_rnn.network import ContourRNN
from trainables.saved_model import SavedModel, load_model, save_model
from trainables.training_state import copies
from trainables.trial import TrialConfig

PATHS = {"preset": "lra_32", "path_length": 4, "distractors": 2, "train": 2, "validation": 2, "test": 20}


@pytest.fixture(name="paths", scope="module")
def _paths(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Pathfinder.from_dict({**PATHS, "masks": True}).load(tmp_path_factory.mktemp("data"))


@pytest.fixture(name="make", scope="module")
def _make(paths: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Saves and loads an untrained network."""

    def make(dataset: Dataset = paths, **model: Any) -> SavedModel:
        name = "pathfinder" if dataset is paths else "digits"
        data = {**PATHS, "masks": True} if dataset is paths else {}
        settings = {"channels": 3, "kernel": 3, "steps": 3, "readout": "pixels" if data else "image", **model}
        document = {"family": "contour_rnn", "model": settings, "data": {"name": name, **data}}
        trial = TrialConfig.from_dict(document)
        torch.manual_seed(0)
        shape = dataset.preprocessing.input_shape
        module = trial.model.build(input_shape=shape, outputs=dataset.task.outputs)
        folder: Path = tmp_path_factory.mktemp("model") / "model"
        weights = copies(module.state_dict())
        save_model(folder, trial=trial, dataset=dataset, weights=weights, step=1, metrics={})
        return load_model(folder)

    return make


def test_it_draws_what_it_counts(make: Any, paths: Dataset) -> None:
    """For two rules: scores by step, state spaces, masks and distances, each a picture, and the numbers as JSON."""
    models = [make(rule="bptt"), make(rule="c_rbp", steps=5)]
    found = ANALYSES["dynamics"](models, paths)
    assert set(found.pictures) == {"scores", "state-space", "masks", "distances"}
    for picture in found.pictures.values():
        assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[0] > 200
    numbers = json.loads(json.dumps(found.numbers, allow_nan=False))
    assert {name: len(one["f1"]) for name, one in numbers["models"].items()} == {"bptt": 25, "c_rbp": 25}
    (test,) = numbers["kolmogorov_smirnov_of_distances"]
    assert test["models"] == ["bptt", "c_rbp"]
    assert 0 <= test["p_value"] <= 1


def test_scores_and_states_are_those_of_the_network(make: Any, paths: Dataset) -> None:
    """The score after N steps is that of the model's own outputs; a state is followed image by image."""
    model = make()
    run = _run(model, paths, "bptt", 7)
    inputs = model.preprocessing.normalize(torch.from_numpy(np.array(paths.test.images)))
    with torch.inference_mode():
        outputs = model.module(inputs, steps=3)
        module = model.module
        assert isinstance(module, ContourRNN)
        states = list(module.trajectory(module.dynamics(inputs), 7))
    measured = model.task.measure(outputs, torch.from_numpy(np.array(paths.test.targets)))
    assert run.scores[2] == pytest.approx(model.task.summarize(measured)["f1"])
    assert run.states.shape[:2] == (20, 7)
    whole = torch.stack(states, dim=1).flatten(2).numpy()
    np.testing.assert_allclose(np.sort(run.states, axis=2), np.sort(whole, axis=2), atol=1e-5)
    moved = np.linalg.norm(whole[:, 6] - whole[:, 2], axis=1) / np.linalg.norm(whole[:, 2], axis=1)
    np.testing.assert_allclose(run.distances, moved, rtol=1e-3)


def test_the_axes_are_the_leading_eigenvectors(make: Any, paths: Dataset) -> None:
    """The projections are those of scikit-learn's principal components, up to their signs."""
    from sklearn.decomposition import PCA

    run = _run(make(), paths, "bptt", 6)
    found = _projected(run)
    rows = run.states.reshape(-1, run.states.shape[2])
    components = PCA(2, svd_solver="full").fit(rows)
    expected = components.transform(rows).reshape(found.places.shape)
    np.testing.assert_allclose(np.abs(found.places), np.abs(expected), atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(found.shares, components.explained_variance_ratio_, atol=1e-3)


def test_the_axes_of_long_runs_take_no_more_memory_than_their_states() -> None:
    """6,400 states have 41 million pairs, or 160 MB; known axes are found, also where float32 has no squares."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((24, 24)))
    scales = np.array([8.0, 4.0, *[1.0] * 22])
    states = (rng.standard_normal((64 * 100, 24)) * scales @ axes.T).reshape(64, 100, 24).astype(np.float32)
    nothing = np.empty(0)
    for factor in (1.0, 1e30):
        followed = states * np.float32(factor)
        run = Run(name="", trained=1, scores=nothing, states=followed, appeared=nothing, images=np.empty(0, np.uint8))
        tracemalloc.start()
        try:
            found = _projected(run)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10 * states.nbytes
        assert found.shares == pytest.approx(scales[:2] ** 2 / (scales**2).sum(), rel=0.1)
        along = followed.reshape(-1, 24).astype(np.float64) @ axes[:, :2]
        for axis in range(2):
            assert abs(np.corrcoef(along[:, axis], found.places[:, :, axis].ravel())[0, 1]) > 0.99


def test_a_run_is_at_least_as_long_as_training(make: Any, paths: Dataset) -> None:
    """As many steps as asked for; fewer would leave nothing to compare with."""
    with pytest.raises(ValueError, match="need steps >= 3, those of training, got 2"):
        dynamics([make()], paths, steps=2)


def test_a_pixel_appears_when_it_comes_to_stay() -> None:
    """What flickers counts from its last appearance, what is not in the last mask has none."""
    masks = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0]], bool).reshape(1, 3, 2, 2)
    np.testing.assert_array_equal(_appeared(masks)[0], [[1, 3], [np.nan, np.nan]])


def test_other_models_and_data_are_refused(make: Any, paths: Dataset, tmp_path: Path) -> None:
    """The message names what is needed and what came."""
    digits = Digits(train=4, validation=2, test=2).load(tmp_path)
    with pytest.raises(ValueError, match="need models that answer classification, got one that answers segmentation"):
        dynamics([make()], digits)


def test_classifiers_have_no_masks(make: Any, tmp_path: Path) -> None:
    """One model, asked for classes: scores and its state space."""
    digits = Digits(train=4, validation=2, test=8).load(tmp_path)
    found = dynamics([make(digits)], digits, steps=4)
    assert set(found.pictures) == {"scores", "state-space"}
    assert len(found.numbers["models"]["bptt"]["accuracy"]) == 4
