"""Images that a program draws, one after the other, as a part of a split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trainables.data.dataset import Split
from trainables.preprocessing import Preprocessing

Drawn = NDArray[np.uint8]


def labelled(count: int, drawn: Iterable[tuple[Drawn, int]], preprocessing: Preprocessing) -> Split:
    """`count` images, fitted to what networks take, and their classes."""
    images = np.empty((count, *preprocessing.input_shape), np.uint8)
    targets = np.empty(count, np.int64)
    for row, (image, label) in enumerate(drawn):
        images[row] = preprocessing.fit(image)
        targets[row] = label
    return Split(images=images, targets=targets)


def masked(count: int, drawn: Iterable[tuple[Drawn, Drawn]], preprocessing: Preprocessing) -> Split:
    """`count` images and their masks of the same size (0 or 1), which keep their sharp edges."""
    images = np.empty((count, *preprocessing.input_shape), np.uint8)
    masks = np.empty((count, *images.shape[2:]), np.uint8)
    fit_mask = Preprocessing(height=images.shape[2], width=images.shape[3], interpolation="nearest")
    for row, (image, mask) in enumerate(drawn):
        images[row] = preprocessing.fit(image)
        masks[row] = fit_mask.fit(mask)[0] > 0
    return Split(images=images, targets=masks)
