"""The digits are scikit-learn's, and serving one gives the pixels that training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trainables.config import ConfigError
from trainables.data.digits import MEAN, STD, Digits


def test_all_images_shared_out_are_the_originals(tmp_path: Path) -> None:
    """At 8x8 and with counts that use up all 1,797 images, each original is there exactly once with its class."""
    dataset = Digits(image_size=8, train=1000, validation=397, test=400).load(tmp_path)
    splits = (dataset.train, dataset.validation, dataset.test)
    images = np.concatenate([split.images for split in splits])[:, 0]
    targets = np.concatenate([split.targets for split in splits])
    original = load_digits()
    pixels = np.rint(original.images * (255 / 16)).astype(np.uint8)
    ours = sorted((image.tobytes(), int(target)) for image, target in zip(images, targets, strict=True))
    theirs = sorted((image.tobytes(), int(target)) for image, target in zip(pixels, original.target, strict=True))
    assert ours == theirs
    assert (images / 255).mean() == pytest.approx(MEAN, abs=5e-7)
    assert (images / 255).std() == pytest.approx(STD, abs=5e-7)


def test_serving_an_original_image_gives_the_pixels_of_the_split(tmp_path: Path) -> None:
    """What a client sends is the 8x8 image; fitting it gives the bytes that the test split holds."""
    own_size = Digits(image_size=8).load(tmp_path)
    enlarged = Digits(image_size=32).load(tmp_path)
    for original, fitted in zip(own_size.test.images, enlarged.test.images, strict=True):
        assert np.array_equal(enlarged.preprocessing.fit(original[0]), fitted)


def test_more_images_than_there_are_is_refused() -> None:
    """The rule and the sum are in the message."""
    with pytest.raises(ConfigError, match=r"need train \+ validation \+ test <= 1797, got 1800"):
        Digits(train=1200, validation=300, test=300)
