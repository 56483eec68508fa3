"""Random changes of training images."""

from __future__ import annotations

import pytest
import torch

from trainables.augmentation import flip


def generator(seed: int = 0) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


IMAGES = torch.arange(400 * 2 * 3 * 5, dtype=torch.int64).remainder(251).to(torch.uint8).view(400, 2, 3, 5)
KINDS = {
    "none": lambda image: [image],
    "horizontal": lambda image: [image, image.flip(2)],
    "vertical": lambda image: [image, image.flip(1)],
    "both": lambda image: [image, image.flip(1), image.flip(2), image.flip(1, 2)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_mirror_image_is_as_likely(kind: str) -> None:
    """Every image is one of its mirror images, each with the same frequency, within 4 sigma (n = 400)."""
    flipped = flip(IMAGES, kind, generator())
    assert flipped.shape == IMAGES.shape
    assert flipped.dtype == torch.uint8
    candidates = [KINDS[kind](image) for image in IMAGES]
    which = [
        next(i for i, candidate in enumerate(of_one) if torch.equal(candidate, image))
        for of_one, image in zip(candidates, flipped, strict=True)
    ]
    share = 1 / len(candidates[0])
    sigma = (share * (1 - share) / len(IMAGES)) ** 0.5
    for number in range(len(candidates[0])):
        assert which.count(number) / len(IMAGES) == pytest.approx(share, abs=4 * sigma)


def test_the_generator_decides() -> None:
    """Equal generators flip alike; the images given are left as they are."""
    before = IMAGES.clone()
    assert torch.equal(flip(IMAGES, "both", generator(1)), flip(IMAGES, "both", generator(1)))
    assert not torch.equal(flip(IMAGES, "both", generator(1)), flip(IMAGES, "both", generator(2)))
    assert torch.equal(IMAGES, before)
