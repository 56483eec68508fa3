"""Saved models: what is served is what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

from trainables.saved_model import load_model, save_model
from trainables.training import Training


@pytest.fixture(name="trained")
def _trained(make_training: Callable[..., Training]) -> Training:
    training = make_training(max_epochs=2)
    training.advance()
    training.advance()
    return training


@pytest.fixture(name="folder")
def _folder(trained: Training, tmp_path: Path) -> Path:
    assert trained.best_step is not None
    save_model(
        tmp_path / "model",
        trial=trained.config,
        dataset=trained.dataset,
        weights=trained.state().best_weights,
        step=trained.best_step,
        metrics=trained.best_metrics,
    )
    return tmp_path / "model"


def test_serving_gives_the_logits_of_the_training_pipeline(trained: Training, folder: Path) -> None:
    """Raw pixels asked one by one give what validation computed on the batch, to 1e-5."""
    data = trained.dataset
    trained.model.eval()
    with torch.inference_mode():
        inputs = data.preprocessing.normalize(torch.from_numpy(data.test.images))
        expected = functional_call(trained.model, dict(trained.best_weights), (inputs,))
    model = load_model(folder)
    served = torch.cat([model.outputs([image[0]]) for image in data.test.images])
    torch.testing.assert_close(served, expected, atol=1e-5, rtol=0)


def test_serving_is_as_accurate_as_the_test(trained: Training, folder: Path) -> None:
    """The classes answered for raw test images give exactly the accuracy that training reported."""
    data = trained.dataset
    answers = load_model(folder).predict([image[0] for image in data.test.images])
    right = [answer["class"] == data.task.classes[t] for answer, t in zip(answers, data.test.targets, strict=True)]
    assert np.mean(right) == pytest.approx(trained.best_metrics["test/accuracy"])


def test_images_of_any_size_and_colour_are_answered(folder: Path) -> None:
    """Grey and RGB images of other sizes may come together; each is answered alone."""
    model = load_model(folder)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, size=size, dtype=np.uint8) for size in [(40, 30), (16, 16, 3), (8, 9)]]
    together = model.predict(images)
    assert [set(answer["probabilities"]) for answer in together] == [set(model.task.classes)] * 3
    assert sum(together[0]["probabilities"].values()) == pytest.approx(1)
    alone = model.predict([images[1]])[0]
    assert alone["probabilities"] == pytest.approx(together[1]["probabilities"], abs=1e-6)
    assert model.predict([]) == []


def test_it_says_where_it_comes_from(trained: Training, folder: Path) -> None:
    """The trial, the epoch and its metrics go with the model."""
    model = load_model(folder)
    assert (model.family, model.config) == ("narrow_resnet", trained.config.model)
    assert (model.task, model.preprocessing) == (trained.dataset.task, trained.dataset.preprocessing)
    assert model.trial == trained.config.to_dict()
    assert (model.step, model.metrics) == (trained.best_step, trained.best_metrics)
    assert not model.module.training


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    """Building the module draws from a generator of its own."""
    before = torch.random.get_rng_state()
    load_model(folder)
    assert torch.equal(before, torch.random.get_rng_state())


def test_altered_weights_are_refused(folder: Path) -> None:
    """One changed byte of the weights is a ValueError that names the file."""
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file"):
        load_model(folder)


def test_another_format_is_refused(folder: Path) -> None:
    """A description of an unknown format is a ValueError that names the known one."""
    (folder / "model.json").write_text(json.dumps({"format": "something-else"}))
    with pytest.raises(ValueError, match="sweepserve-model-1"):
        load_model(folder)


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    """No model is a FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path)
