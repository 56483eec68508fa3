"""What happens to an image before a model sees it: the same code at training and at serving time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.config import Config, setting

Interpolation = Literal["nearest", "area", "linear", "cubic"]
_CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing(Config):
    """From a decoded image of any size to a model's input; saved with every model.

    Two halves, so that datasets keep uint8 pixels and only batches become floats: `fit` (colour, size; uint8) and
    `normalize` (on the device).
    """

    channels: int = setting(1, at_least=1, at_most=3, help="1: grey, 3: red, green, blue")
    height: int = setting(at_least=1, help="rows of the model's input, in pixels")
    width: int = setting(at_least=1, help="columns of the model's input, in pixels")
    interpolation: Interpolation = setting("area", help="how an image of another size is resized")
    crop: float | None = setting(
        None,
        above=0,
        at_most=1,
        help="of the largest part in the middle that has the input's shape, the share of its sides that is cut out; "
        "none: the whole image, stretched to that shape",
    )
    mean: tuple[float, ...] = setting((0.0,), help="per channel, of pixels scaled to 0..1; subtracted")
    std: tuple[float, ...] = setting((1.0,), above=0, help="per channel, of pixels scaled to 0..1; divided by")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Grey or colour, and one mean and deviation a channel."""
        if self.channels == 2:
            yield "channels", "need 1 (grey) or 3 (red, green, blue), got 2"
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                yield name, f"need {self.channels} numbers, one a channel, got {list(getattr(self, name))}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of one input."""
        return self.channels, self.height, self.width

    def fit(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image as uint8 `[c, h, w]`: from grey `[h, w]` or RGB `[h, w, 3]` of any size.

        Raises:
            ValueError: the array is not uint8 of one of these shapes, or has no pixel.
        """
        if image.dtype != np.uint8 or image.size == 0 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise ValueError(f"need uint8 pixels [h, w] or [h, w, 3], got {image.dtype} {list(image.shape)}")
        if self.channels == 1 and image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
        elif self.channels == 3 and image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        if self.crop is not None:
            image = self._middle(image, self.crop)
        if image.shape[:2] != (self.height, self.width):
            # Area averaging is defined for shrinking only; OpenCV would silently take nearest neighbours to enlarge.
            enlarges = self.height > image.shape[0] or self.width > image.shape[1]
            method = "linear" if self.interpolation == "area" and enlarges else self.interpolation
            image = cv2.resize(image, (self.width, self.height), interpolation=_CV2[method]).astype(
                np.uint8, copy=False
            )
        return np.ascontiguousarray(image[None] if image.ndim == 2 else image.transpose(2, 0, 1))

    def _middle(self, image: npt.NDArray[np.uint8], share: float) -> npt.NDArray[np.uint8]:
        scale = share * min(image.shape[0] / self.height, image.shape[1] / self.width)
        rows, columns = max(1, round(scale * self.height)), max(1, round(scale * self.width))
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        return image[top : top + rows, left : left + columns]

    def normalize(self, images: Tensor, by: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Float32 inputs from uint8 images `[n, c, h, w]`, on the device where they are.

        Args:
            images: of 0..255.
            by: `scales_and_shifts`, where they are on that device already.
        """
        inputs = images.float()  # a copy, so that the rest can happen in place
        if self.channels == 1:
            return inputs.mul_(1 / (255 * self.std[0])).add_(-self.mean[0] / self.std[0])
        scales, shifts = by or (one.to(images.device) for one in self.scales_and_shifts())
        return inputs.mul_(scales).add_(shifts)

    def scales_and_shifts(self) -> tuple[Tensor, Tensor]:
        """What `normalize` multiplies the channels of 0..255 by, and what it adds to them, `[1, c, 1, 1]` each."""
        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        each = (1, self.channels, 1, 1)
        return torch.tensor(scale).view(each), torch.tensor(shift).view(each)
