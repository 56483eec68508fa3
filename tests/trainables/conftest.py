"""A dataset in memory that a small model learns in a few epochs, and trials on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.initial_weights import find_initial_weights
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.preprocessing import Preprocessing
from trainables.tasks import Classification
from trainables.training import Training
from trainables.trial import TrainConfig, TrialConfig

SIZE = 24  # the smallest multiple of 8 on which bfloat16 is safe


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Models this small are slower on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _split(n: int, seed: int) -> Split:
    """Noise with one bright patch; its corner is the class."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, size=n)
    images = random.integers(0, 160, size=(n, 1, SIZE, SIZE), dtype=np.uint8)
    half = SIZE // 2
    for image, target in zip(images, targets, strict=True):
        row, column = divmod(int(target), 2)
        image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 95
    return Split(images=images, targets=targets.astype(np.int64))


@pytest.fixture(name="corners", scope="session")
def _corners() -> Dataset:
    return Dataset(
        name="corners",
        digest="0" * 16,
        task=Classification(classes=("top left", "top right", "bottom left")),
        preprocessing=Preprocessing(height=SIZE, width=SIZE, mean=(0.4,), std=(0.25,)),
        train=_split(150, 0),
        validation=_split(60, 1),
        test=_split(60, 2),
    )


@pytest.fixture(name="make_trial")
def _make_trial() -> Callable[..., TrialConfig]:
    def make(**train: Any) -> TrialConfig:
        return TrialConfig(
            family="narrow_resnet",
            model=NarrowResNetConfig(channels=(2, 4, 4, 4)),
            train=TrainConfig(**{"batch_size": 32, "max_epochs": 6, "learning_rate": 0.01, **train}),
            data=Digits(),
        )

    return make


@pytest.fixture(name="make_training")
def _make_training(corners: Dataset, make_trial: Callable[..., TrialConfig], tmp_path: Path) -> Callable[..., Training]:
    def make(**train: Any) -> Training:
        config = make_trial(**train)
        name = config.train.initial_weights
        path = find_initial_weights(name, tmp_path) if name is not None else None
        return Training(config, corners, device=torch.device("cpu"), initial_weights=path)

    return make
