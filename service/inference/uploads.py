"""The images of one request: named, decoded together, made to fit their model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.errors import BadImage, TooLarge
from service.inference.engine import Images
from service.inference.image_header import read_header
from service.inference.images import decode
from trainables.preprocessing import Preprocessing

SMALL_FILE, SMALL_IMAGE = 2**16, 2**18
"""Bytes and pixels up to which an image is decoded beside others; a larger one would keep them waiting."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image file as it came."""

    name: str
    """What to call it in an error."""
    data: bytes


def are_small(uploads: Sequence[Upload]) -> bool:
    """Decoding them takes so little time that others do not notice. Files that are no images are small."""
    if sum(len(upload.data) for upload in uploads) > SMALL_FILE:
        return False
    pixels = 0
    for upload in uploads:
        try:
            header = read_header(upload.data)
        except BadImage:
            continue
        pixels += header.width * header.height
    return pixels <= SMALL_IMAGE


def fitted(uploads: Sequence[Upload], preprocessing: Preprocessing, *, max_pixels: int) -> Images:
    """The images as the model takes them, uint8 `[n, c, h, w]`.

    Raises:
        BadImage: one cannot be read.
        TooLarge: they have more pixels together than `max_pixels`.
    """
    images = np.empty((len(uploads), *preprocessing.input_shape), np.uint8)
    left = max_pixels
    for i, upload in enumerate(uploads):
        try:
            image = decode(upload.data, max_pixels=left)
        except BadImage as error:
            raise BadImage(f"{upload.name} cannot be read: {error}") from error
        except TooLarge as error:
            together = f"{max_pixels} together (SWEEPSERVE_MAX_IMAGE_PIXELS)"
            message = f"{upload.name} is too large: {error}; all images of a request may have {together}"
            raise TooLarge(message) from error
        left -= image.shape[0] * image.shape[1]
        images[i] = preprocessing.fit(image)
    return images
