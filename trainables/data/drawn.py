"""Images that a program draws, one after the other, as a part of a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.dataset import Split
from trainables.preprocessing import Preprocessing

Drawn = NDArray[np.uint8]
Resize = Literal["nearest", "area", "cubic"]
RESIZE_HELP = "how the drawn image gets this size; cubic: its mask too, as C-RBP was trained"
PixelRange = Literal["centred", "unit"]
PIXEL_RANGE_HELP = (
    "of what a network sees; centred: -0.5 to 0.5, as the narrow ResNets were trained; unit: 0 to 1, as the recurrent "
    "contour networks were, whose squared filters must not answer to black"
)
COVERED = 0.2
"""Of a mask that is resized cubically, the least intensity beyond which a pixel belongs to it, where 1 is white."""


def drawn_grey(size: int, resize: Resize, pixel_range: PixelRange) -> Preprocessing:
    """Grey, square, and of this range.

    The published `cubic` is Pillow's, which also averages as it shrinks; this one is OpenCV's, which does not, so its
    edges are a little sharper.
    """
    mean = 0.5 if pixel_range == "centred" else 0.0
    return Preprocessing(height=size, width=size, interpolation=resize, mean=(mean,))


def labelled(count: int, drawn: Iterable[tuple[Drawn, int]], preprocessing: Preprocessing) -> Split:
    """`count` images, fitted to what networks take, and their classes."""
    images = np.empty((count, *preprocessing.input_shape), np.uint8)
    targets = np.empty(count, np.int64)
    for row, (image, label) in enumerate(drawn):
        images[row] = preprocessing.fit(image)
        targets[row] = label
    return Split(images=images, targets=targets)


def masked(count: int, drawn: Iterable[tuple[Drawn, Drawn]], preprocessing: Preprocessing) -> Split:
    """`count` images and their masks of the same size (0 or 1) from drawn ones (0 or 255).

    Masks keep their sharp edges, but where images are resized cubically: there Linsley et al. (2020) resize masks so
    too, and take what is then brighter than 0.2.
    """
    images = np.empty((count, *preprocessing.input_shape), np.uint8)
    masks = np.empty((count, *images.shape[2:]), np.uint8)
    cubic = preprocessing.interpolation == "cubic"
    fit_mask = dataclasses.replace(preprocessing, interpolation="cubic" if cubic else "nearest")
    least = COVERED * 255 if cubic else 0
    for row, (image, mask) in enumerate(drawn):
        images[row] = preprocessing.fit(image)
        masks[row] = fit_mask.fit(mask)[0] > least
    return Split(images=images, targets=masks)
