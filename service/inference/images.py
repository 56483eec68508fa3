"""From the bytes of an image file to pixels, for bytes that come from strangers."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from service.errors import BadImage, TooLarge
from service.inference.image_header import read_header

Pixels = npt.NDArray[np.uint8]


def decode(data: bytes, *, max_pixels: int) -> Pixels:
    """The pixels of a PNG, JPEG, BMP, TIFF or WebP: uint8, grey `[h, w]` or RGB `[h, w, 3]`.

    16-bit channels keep their upper 8 bits; what is transparent lets a white page show through; a photograph that says
    how the camera was held is turned upright (JPEG only). Of several pictures in a file the first is taken.

    Raises:
        BadImage: the bytes are no such image, or are damaged, or have other channels than these.
        TooLarge: more pixels than `max_pixels`; found before memory is allocated for them.
    """
    header = read_header(data)
    if header.width * header.height > max_pixels:
        raise TooLarge(f"need at most {max_pixels} pixels, got {header.width} x {header.height}")
    # Only this flag keeps alpha, and only the other one turns photographs; a JPEG has no alpha.
    flags = cv2.IMREAD_ANYCOLOR if header.format == "JPEG" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise BadImage(f"the {header.format} is damaged or cut off")
    if image.dtype == np.uint16:
        image = image >> 8
    elif image.dtype != np.uint8:
        raise BadImage(f"need 8 or 16 bits a channel, got a {header.format} of {image.dtype}")
    pixels: Pixels = image.astype(np.uint8, copy=False)
    match pixels.shape[2:]:
        case ():
            return pixels
        case (3,):
            return np.ascontiguousarray(pixels[:, :, ::-1])  # OpenCV's order is blue, green, red
        case (4,):
            return _on_white(pixels[:, :, 2::-1], pixels[:, :, 3:])
    raise BadImage(f"need a grey or a colour image, got a {header.format} of {pixels.shape[2]} channels")


def _on_white(rgb: Pixels, alpha: Pixels) -> Pixels:
    image = np.empty(rgb.shape, np.uint8)
    for start in range(0, len(rgb), _ROWS):  # in strips, since the products take twice the memory
        rows = slice(start, start + _ROWS)
        opacity = alpha[rows].astype(np.uint16)
        image[rows] = (rgb[rows] * opacity + 255 * (255 - opacity) + 127) // 255
    return image


_ROWS = 64
