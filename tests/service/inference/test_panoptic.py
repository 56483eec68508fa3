"""Panoptic models, served: what they answer, and by which engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from service.cli.tables import predictions
from service.inference.answers import tensors
from service.inference.engine import CannotServe, Eager, Pipeline
from service.inference.tensors import datatype
from service.inference.tracing import converting, trace
from trainables.data.dataset import Dataset, Split
from trainables.data.scenes import Scenes
from trainables.saved_model import SavedModel, load_model, save_model
from trainables.trial import TrialConfig

SMALL = {"backbone": "small", "channels": 8, "hidden": 16, "anchor": 4.0, "proposals": 20, "steps": 2}


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> SavedModel:
    trial = TrialConfig.from_dict({"family": "panoptic_fpn", "model": SMALL, "data": {"name": "scenes"}})
    data = Scenes()
    nothing = Split(images=np.zeros((0, 3, 64, 64), np.uint8), targets=np.zeros((0, 64, 64), np.int32))
    dataset = Dataset("scenes", "0" * 16, data.task, data.preprocessing, nothing, nothing, nothing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = trial.model.build(input_shape=(3, 64, 64), outputs=2).state_dict()
    save_model(tmp_path / "model", trial=trial, dataset=dataset, weights=weights, step=1, metrics={})
    return load_model(tmp_path / "model")


def test_a_panoptic_model_answers_with_segments(model: SavedModel) -> None:
    """After any number of steps; each pixel's category and instance are tensors of the Open Inference Protocol too."""
    eager = Eager(model)
    assert (eager.takes_steps, eager.evolves) == (True, False)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    outputs = torch.from_numpy(eager.run(images, steps=3))
    found = tensors(model.task, outputs, evolution=False)
    kinds = {name: (datatype(one.numpy()), tuple(one.shape)) for name, one in found.items()}
    assert kinds == {
        "outputs": ("FP32", (2, 2, 64, 64)),
        "category": ("INT32", (2, 64, 64)),
        "instance": ("INT32", (2, 64, 64)),
    }
    for answer in model.task.answers(outputs):
        assert 0 < sum(segment["area"] for segment in answer["segments"]) <= 64 * 64


def test_it_is_left_to_eager_pytorch(model: SavedModel) -> None:
    """A graph of it would be wrong for other images."""
    with converting(), pytest.raises(CannotServe, match="what is computed depends on what is seen"):
        trace(Pipeline(model))


def test_a_line_names_the_segments() -> None:
    """Things with their instance; boxes and masks are only in the JSON."""
    segments = [{"class": "disc", "instance": 2, "mask": {}}, {"class": "sky", "mask": {}}]
    made = predictions(["a.png"], {"predictions": [{"segments": segments}]})
    assert [list(column.cells) for column in made.columns] == [["a.png"], ["disc 2, sky"]]
