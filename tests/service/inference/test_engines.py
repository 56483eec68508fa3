"""Engines give eager PyTorch's numbers, or are not taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from service.inference import engine
from service.inference.engine import SIZES, CannotServe, Eager, Images, Outputs, Pipeline, check, choose
from service.inference.serving_config import Serving
from tests.service.conftest import save_random_model
from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.families import FAMILIES
from trainables.preprocessing import Preprocessing
from trainables.saved_model import SavedModel, load_model, save_model
from trainables.tasks import Classification
from trainables.trial import TrainConfig, TrialConfig


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> SavedModel:
    save_random_model(tmp_path / "model", seed=0)
    return load_model(tmp_path / "model")


class Fake:
    """An engine whose numbers a test chooses."""

    name = "fake"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def run(self, images: Images) -> Outputs:
        found: Outputs = self._answer(images)
        return found


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("family", ["contour_rnn", "narrow_resnet", "shared_resnet", "spatial_rnn"])
def test_an_engine_gives_the_numbers_of_eager_pytorch(name: Any, family: str, tmp_path: Path) -> None:
    """Of any number of images, to 1e-5 of the answers, and the image beside it makes no difference."""
    model = _saved(tmp_path / "model", family)
    eager = Eager(model)
    choice = choose(model, Serving(engine=name), eager)
    assert choice.engine.name == name, choice.notes
    images = np.random.default_rng(3).integers(0, 256, (21, *model.preprocessing.input_shape), dtype=np.uint8)
    outputs = choice.engine.run(images)
    np.testing.assert_allclose(outputs, eager.run(images), atol=1e-5)
    np.testing.assert_allclose(choice.engine.run(images[4:5]), outputs[4:5], atol=1e-5)
    assert outputs.dtype == np.float32


def test_an_engine_with_other_numbers_is_not_taken(model: SavedModel) -> None:
    """Other numbers, no numbers, other shapes and failures each have a reason; the last batch counts as the first."""
    eager = Eager(model)

    def off_by(amount: float) -> Any:
        return lambda images: eager.run(images) + np.float32(amount)

    check(Fake(off_by(0)), eager, model, 1e-5)
    with pytest.raises(CannotServe, match=r"its outputs differ by \d.*, more than 1.0e-05"):
        check(Fake(off_by(1e-3)), eager, model, 1e-5)
    with pytest.raises(CannotServe, match="its outputs differ by nan"):
        check(Fake(off_by(float("nan"))), eager, model, 1e-5)
    with pytest.raises(CannotServe, match=rf"need outputs \[{SIZES[0]}, 3\] of {SIZES[0]} images, got \[2, 3\]"):
        check(Fake(lambda images: eager.run(np.zeros((2, *images.shape[1:]), np.uint8))), eager, model, 1e-5)
    with pytest.raises(CannotServe, match=r"it fails on 1 images: .*zero"):
        check(Fake(lambda images: 1 // 0), eager, model, 1e-5)


def test_a_model_that_no_engine_takes_is_run_by_pytorch(model: SavedModel) -> None:
    """A model that does what its numbers say is eager's, and the notes say what the others' trouble was."""
    fickle = _with(model, Fickle(model.module))
    choice = choose(fickle, Serving(), Eager(fickle))
    assert choice.engine.name == "eager"
    assert [note.partition(":")[0] for note in choice.notes[:3]] == ["openvino", "onnxruntime", "eager"]


def test_the_fastest_of_those_that_agree_is_taken(model: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager PyTorch is one of them; what is asked for by name is taken however fast it is."""
    eager = Eager(model)
    slow = Fake(eager.run)
    monkeypatch.setattr(engine, "_MAKERS", {"openvino": lambda _: slow, "onnxruntime": lambda _: slow})
    monkeypatch.setattr(engine, "_seconds", lambda one, _, images: {"fake": 2.0, "eager": 1.0}[one.name] * images / 8)
    choice = choose(model, Serving(), eager)
    assert choice.engine is eager
    assert "eager: 1000.00 ms for 8 images" in choice.notes
    assert (choice.enough, choice.notes[-1]) == (1, "eager: more than 1 images at a time gain next to nothing")
    assert choose(model, Serving(engine="openvino"), eager).engine is slow


@pytest.mark.parametrize(
    ("one", "several", "enough"),
    [
        (0.0103, 0.0803, 2),  # 10 ms each and no more: only what handing it over costs is to be shared
        (0.040, 0.320, 1),
        (0.0012, 0.0082, 10),  # 1 ms each, and 0.2 once for all
    ],
)
def test_batches_are_as_large_as_pays(one: float, several: float, enough: int) -> None:
    """Beyond, all that a batch costs once is less than a twentieth of it."""
    assert engine.enough_at_once(one, several) == enough


@pytest.mark.parametrize("several", [0.005, 0.0049])
def test_where_many_images_take_as_long_as_one_no_batch_is_too_large(several: float) -> None:
    """As on a graphics card; and what is measured is not exact."""
    assert engine.enough_at_once(0.005, several) > 1024


def test_convolutions_by_fourier_transforms_stay_with_pytorch(tmp_path: Path) -> None:
    """Other engines have no form for them, and the notes say which setting would have one."""
    model = _saved(tmp_path / "model", "contour_rnn", kernel=13)
    choice = choose(model, Serving(), Eager(model))
    assert choice.engine.name == "eager"
    assert [note.partition(":")[0] for note in choice.notes[:2]] == ["openvino", "onnxruntime"]
    assert all(note.endswith("cannot be traced; need the form direct") for note in choice.notes[:2])


def test_a_recurrent_model_takes_other_numbers_of_steps(model: SavedModel) -> None:
    """They reach the module; a model without steps says so."""
    assert not Eager(model).takes_steps
    recurrent = Eager(_with(model, Recurrent()))
    assert recurrent.takes_steps
    images = np.full((2, 1, 16, 16), 255, np.uint8)
    assert recurrent.run(images)[0, 0] == 4
    assert recurrent.run(images, steps=7)[0, 0] == 7


def test_nothing_comes_from_the_host_while_a_model_runs(model: SavedModel) -> None:
    """Or no CUDA graph could be recorded: the numbers that colours are normalised by are where the model is."""
    preprocessing = Preprocessing(channels=3, height=4, width=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    pipeline = Pipeline(replace(model, module=nn.Identity(), preprocessing=preprocessing))
    torch.testing.assert_close(pipeline(images), preprocessing.normalize(images), rtol=0, atol=0)
    pipeline, images = pipeline.to("meta"), images.to("meta")
    with Devices() as devices:
        pipeline(images)
    assert devices.seen == {"meta"}


class Devices(TorchDispatchMode):
    """Of the tensors that operations are given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= {one.device.type for one in args if isinstance(one, Tensor)}
        return func(*args, **(kwargs or {}))


class Fickle(nn.Module):
    """Does something else for dark images."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        bright = float(images.sum()) > images.numel() / 2
        outputs: Tensor = self.module(images)
        return outputs.exp() if bright else outputs - len(images)


class Recurrent(nn.Module):
    """Adds the mean once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor, steps: int = 4) -> Tensor:
        return steps * self.weight * images.mean(dim=(1, 2, 3))[:, None].expand(-1, 3)


def _with(model: SavedModel, module: nn.Module) -> SavedModel:
    return SavedModel(
        module, model.family, model.config, model.task, model.preprocessing, model.trial, model.step, model.metrics
    )


def _saved(folder: Path, family: str, **changes: Any) -> SavedModel:
    nothing = Split(images=np.zeros((0, 1, 28, 28), np.uint8), targets=np.zeros(0, np.int64))
    task, preprocessing = Classification(classes=("cat", "dog", "newt")), Preprocessing(height=28, width=28)
    if family == "narrow_resnet":
        preprocessing = replace(preprocessing, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    small: dict[str, dict[str, Any]] = {
        "contour_rnn": {"channels": 4, "kernel": 5, "steps": 3},
        "narrow_resnet": {"channels": [4, 4, 8, 8]},
        "shared_resnet": {"blocks": [1, 1, 1], "channels": [4, 8, 16]},
        "spatial_rnn": {"network": "cnn", "hidden_size": 4},
    }
    config = FAMILIES[family].from_dict({**small[family], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        weights = config.build(input_shape=preprocessing.input_shape, outputs=task.outputs).state_dict()
    trial = TrialConfig(family=family, model=config, train=TrainConfig(), data=Digits())
    dataset = Dataset("animals", "0" * 16, task, preprocessing, nothing, nothing, nothing)
    save_model(folder, trial=trial, dataset=dataset, weights=weights, step=1, metrics={})
    return load_model(folder)
