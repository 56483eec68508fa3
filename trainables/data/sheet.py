"""A contact sheet: some images of a split in rows, each with its class."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from trainables.data.dataset import Dataset, Split

LEAST_SIDE = 96
CAPTION = 16
GAP = 4
GREY = 96
TINT = np.array([1.0, 0.45, 0.2])  # of the pixels that a mask covers


def contact_sheet(dataset: Dataset, split: Split, count: int = 24, columns: int = 6) -> npt.NDArray[np.uint8]:
    """The first `count` images of a split as one RGB picture `[h, w, 3]`; small images are enlarged whole times.

    Raises:
        ValueError: `count` or `columns` is below 1.
    """
    if count < 1 or columns < 1:
        raise ValueError(f"need count >= 1 and columns >= 1, got {count} and {columns}")
    count = min(count, len(split))
    height, width = split.images.shape[2:]
    enlarged = max(1, math.ceil(LEAST_SIDE / width))
    tile = (height * enlarged + CAPTION + GAP, width * enlarged + GAP)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * tile[0] + GAP, min(columns, count) * tile[1] + GAP, 3), GREY, np.uint8)
    for number in range(count):
        row, column = divmod(number, columns)
        top, left = GAP + row * tile[0], GAP + column * tile[1]
        image = np.broadcast_to(split.images[number].transpose(1, 2, 0), (height, width, 3))
        if (marked := dataset.task.marked(split.targets[number])) is not None:
            image = np.where(marked[:, :, None], image * TINT, image).astype(np.uint8)
        large = image.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
        sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
        caption = dataset.task.caption(split.targets[number])
        baseline = (left, top + large.shape[0] + CAPTION - GAP)
        cv2.putText(sheet, caption, baseline, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return sheet
