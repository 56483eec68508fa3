"""Analyses of spatial RNNs: weights and correlated features."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from trainables.analysis.analyses import ANALYSES
from trainables.analysis.features import correlations
from trainables.data.dataset import Dataset
from trainables.saved_model import SavedModel, load_model, save_model
from trainables.trial import TrialConfig


@pytest.fixture(name="digits", scope="module")
def _digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return _trial("lstm").data.load(tmp_path_factory.mktemp("data"))


def _trial(layer: str) -> TrialConfig:
    return TrialConfig.from_dict(
        {
            "family": "spatial_rnn",
            "model": {"layer": layer, "reshape": [6, 5], "hidden_size": 3},
            "data": {"name": "digits", "image_size": 8, "train": 20, "validation": 10, "test": 60},
        }
    )


def _model(layer: str, dataset: Dataset, folder: Path) -> SavedModel:
    trial = _trial(layer)
    torch.manual_seed(0)
    module = trial.model.build(input_shape=(1, 8, 8), outputs=10)
    save_model(folder / layer, trial=trial, dataset=dataset, weights=module.state_dict(), step=1, metrics={})
    return load_model(folder / layer)


def test_weights_are_counted_layer_by_layer(digits: Dataset, tmp_path: Path) -> None:
    """Every weight is in one bin of its layer, biases in none; what is told of them is true of them."""
    model = _model("lstm", digits, tmp_path)
    analysis = ANALYSES["weights"]([model, model], digits)
    json.dumps(analysis.numbers)
    assert list(analysis.numbers) == ["fc1.1", "rnn.rows.unit", "rnn.columns.unit", "head.1"]
    values = model.module.get_parameter("head.1.weight").numpy()
    one, other = analysis.numbers["head.1"]
    assert one == other
    assert sum(one["counts"]) == one["count"] == values.size
    assert one["mean"] == pytest.approx(values.mean(), abs=1e-7)
    assert one["largest"] == pytest.approx(np.abs(values).max())


def test_features_are_those_around_the_recurrent_layer(digits: Dataset, tmp_path: Path) -> None:
    """30 numbers go into the LSTM and 12 come out, of the fully connected version's last hidden layer likewise."""
    models = [_model(layer, digits, tmp_path) for layer in ("lstm", "fc")]
    analysis = ANALYSES["features"](models, digits)
    recurrent, connected = analysis.numbers["models"]
    assert (recurrent["layer"], recurrent["before"]["features"], recurrent["after"]["features"]) == ("rnn", 30, 12)
    assert (connected["layer"], connected["after"]["features"]) == ("fc2", 12)
    for one in (recurrent, connected):
        for side in ("before", "after"):
            assert 0 < one[side]["mean"] < 1


@pytest.mark.parametrize("name", ["features", "weights"])
def test_pictures_are_images(name: str, digits: Dataset, tmp_path: Path) -> None:
    """One PNG file that can be decoded and shows something, and numbers that are plain JSON."""
    analysis = ANALYSES[name]([_model("lstm", digits, tmp_path)], digits)
    assert json.loads(json.dumps(analysis.numbers)) == analysis.numbers
    (picture,) = analysis.pictures.values()
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.std() > 5


def test_correlations_are_those_of_pairs_that_vary() -> None:
    """Opposite features correlate fully, independent ones hardly; constant ones are left out."""
    drawn = np.random.default_rng(0).normal(size=(20_000, 2))
    values = np.column_stack([drawn[:, 0], -2 * drawn[:, 0], drawn[:, 1], np.ones(len(drawn))])
    found = np.sort(correlations(values))
    np.testing.assert_allclose(found, [0, 0, 1], atol=0.04)  # 5.6 standard deviations of a correlation of none
    assert correlations(values[:, 2:]).size == 0
