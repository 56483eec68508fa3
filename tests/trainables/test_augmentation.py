"""Random changes of training images."""

from __future__ import annotations

import pytest
import torch

from trainables.augmentation import Flips, cut, flip
from trainables.tasks import Classification, Task


def generator(seed: int = 0) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


TASK = Classification(classes=("a", "b"))
TARGETS = torch.arange(400)


def flipped(kind: Flips, seed: int = 0, task: Task = TASK) -> torch.Tensor:
    """The images alone."""
    return flip(IMAGES, TARGETS, kind, task=task, generator=generator(seed))[0]


IMAGES = torch.arange(400 * 2 * 3 * 5, dtype=torch.int64).remainder(251).to(torch.uint8).view(400, 2, 3, 5)
KINDS = {
    "none": lambda image: [image],
    "horizontal": lambda image: [image, image.flip(2)],
    "vertical": lambda image: [image, image.flip(1)],
    "both": lambda image: [image, image.flip(1), image.flip(2), image.flip(1, 2)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_mirror_image_is_as_likely(kind: Flips) -> None:
    """Every image is one of its mirror images, each with the same frequency, within 4 sigma (n = 400)."""
    images = flipped(kind)
    assert images.shape == IMAGES.shape
    assert images.dtype == torch.uint8
    candidates = [KINDS[kind](image) for image in IMAGES]
    which = [
        next(i for i, candidate in enumerate(of_one) if torch.equal(candidate, image))
        for of_one, image in zip(candidates, images, strict=True)
    ]
    share = 1 / len(candidates[0])
    sigma = (share * (1 - share) / len(IMAGES)) ** 0.5
    for number in range(len(candidates[0])):
        assert which.count(number) / len(IMAGES) == pytest.approx(share, abs=4 * sigma)


def test_the_generator_decides() -> None:
    """Equal generators flip alike; the images given are left as they are."""
    before = IMAGES.clone()
    assert torch.equal(flipped("both", 1), flipped("both", 1))
    assert not torch.equal(flipped("both", 1), flipped("both", 2))
    assert torch.equal(IMAGES, before)


def test_targets_that_are_pictures_are_mirrored_with_their_images() -> None:
    """The task is told which images were mirrored, and along which axis."""

    class Pictures(Classification):
        """Its targets are like its images."""

        def mirror(self, targets: torch.Tensor, chosen: torch.Tensor, axis: int) -> torch.Tensor:
            """As the loop mirrors images."""
            return torch.where(chosen.view(-1, 1, 1, 1), targets.flip(axis), targets)

    images, targets = flip(IMAGES, IMAGES, "both", task=Pictures(classes=("a",)), generator=generator())
    assert torch.equal(images, targets)
    assert not torch.equal(images, IMAGES)


def test_every_place_of_a_part_is_as_likely() -> None:
    """Parts of 2 x 3 in images of 3 x 5 begin at one of 2 x 3 places, each as often within 4 sigma (n = 400)."""
    parts = cut(IMAGES, 2, 3, generator=generator())
    assert parts.shape == (400, 2, 2, 3)
    places = [(top, left) for top in range(2) for left in range(3)]
    began = [
        next((top, left) for top, left in places if torch.equal(image[:, top : top + 2, left : left + 3], part))
        for image, part in zip(IMAGES, parts, strict=True)
    ]
    sigma = (1 / 6 * 5 / 6 / 400) ** 0.5
    for place in places:
        assert began.count(place) / 400 == pytest.approx(1 / 6, abs=4 * sigma)


def test_images_without_room_stay_and_draw_nothing() -> None:
    """Then what else is drawn by chance is as it was without cutting."""
    chance, other = generator(), generator()
    assert cut(IMAGES, 3, 5, generator=chance) is IMAGES
    assert torch.equal(chance.get_state(), other.get_state())
