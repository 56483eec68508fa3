"""How drawn images and masks become what networks are given and asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.data.cabc import ClutteredABC
from trainables.data.dataset import DatasetConfig
from trainables.data.drawn import drawn_grey, masked
from trainables.data.pathfinder import Pathfinder


@pytest.mark.parametrize("dataset", [Pathfinder, ClutteredABC])
def test_black_is_zero_in_the_unit_range(dataset: type[DatasetConfig]) -> None:
    """Black and white are 0 and 1 if asked for, else -0.5 and 0.5; what is kept on disk does not change."""
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    centred, unit = dataset.from_dict({}), dataset.from_dict({"pixel_range": "unit"})
    assert torch.allclose(centred.preprocessing.normalize(ends).flatten(), torch.tensor([-0.5, 0.5]))
    assert torch.equal(unit.preprocessing.normalize(ends).flatten(), torch.tensor([0.0, 1.0]))
    drawn = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(centred.preprocessing.fit(drawn), unit.preprocessing.fit(drawn))


def test_a_digest_does_not_know_of_what_is_as_by_default() -> None:
    """So that images which were made before there were such settings are found again."""
    assert Pathfinder(pixel_range="centred").digest == Pathfinder().digest != Pathfinder(pixel_range="unit").digest


def test_masks_that_are_resized_cubically_cover_what_is_brighter_than_a_fifth() -> None:
    """What overshoots is cut off at 0 and 255; of 255, 51 is no more than a fifth and 52 is. Others stay sharp."""
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 2:5] = 255
    mask[:, 8], mask[:, 12] = 86, 88
    drawn = [(mask, mask)]
    cubic, nearest = (masked(1, drawn, drawn_grey(8, resize, "unit")) for resize in ("cubic", "nearest"))
    # OpenCV's weights of the four pixels around a new one are -3/32, 19/32, 19/32, -3/32.
    np.testing.assert_array_equal(cubic.images[0, 0, 3], [0, 255, 128, 0, 51, 0, 52, 0])
    np.testing.assert_array_equal(cubic.targets[0, 3], [0, 1, 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(nearest.targets[0, 3], [0, 1, 1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize("dataset", [Pathfinder, ClutteredABC])
def test_both_can_be_resized_cubically(dataset: type[DatasetConfig]) -> None:
    """Requests to a served model then are too."""
    assert dataset.from_dict({"resize": "cubic"}).preprocessing.interpolation == "cubic"
