"""Masks of run lengths as pictures."""

import base64

import cv2
import numpy as np
import torch

from service.inference.masks import with_png_masks
from trainables.tasks import Segmentation


def test_a_mask_becomes_the_picture_that_its_runs_describe() -> None:
    """Object white, ground black, whether the first pixel is object or ground; the rest of the answer stays."""
    for seed in range(4):
        logits = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(seed))
        (answer,) = Segmentation().answers(logits)
        shown = with_png_masks(answer)
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(shown["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
        expected = (logits[0, 1] > logits[0, 0]).numpy()
        np.testing.assert_array_equal(picture, expected * 255)
        assert (shown["covers"], shown["share"]) == (answer["covers"], answer["share"])
