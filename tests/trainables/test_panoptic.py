"""Panoptic segmentation: scores by hand, answers, and targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from service.inference.masks import with_png_masks
from trainables.config import ConfigError
from trainables.measured import Measured
from trainables.tasks import Panoptic, task_from_dict

TASK = Panoptic(things=("cat", "dog"), stuff=("sky", "sea"))
CAT, DOG, SKY, SEA = 1000, 2000, 3000, 4000


def column(*runs: tuple[int, int]) -> Tensor:
    """A target `[1, h, 1]` of runs of (target, pixels)."""
    return torch.cat([torch.full((count,), target) for target, count in runs]).int()[None, :, None]


def outputs(targets: Tensor) -> Tensor:
    """What a model gives that says just that."""
    return torch.stack([targets // 1000 - 1, targets % 1000], dim=1).float()


def scores(found: Tensor, true: Tensor) -> dict[str, float]:
    """The metrics of a split of these images."""
    measured = Measured()
    measured.add(TASK.measure(outputs(found), true))
    return {name.removeprefix("test/"): value for name, value in measured.read("test", TASK).items()}


def test_a_map_that_is_right_has_all_of_every_score() -> None:
    """Whatever numbers the instances have."""
    true = column((CAT + 1, 4), (CAT + 2, 3), (DOG + 1, 2), (SKY, 5))
    found = column((CAT + 7, 4), (CAT + 3, 3), (DOG + 2, 2), (SKY, 5))
    ones = dict.fromkeys(("pq", "pq_things", "pq_stuff", "sq", "rq"), 1.0)
    assert scores(found, true) == ones | {"loss": 0.0}


def test_scores_are_those_of_a_hand_example() -> None:
    """Two cats, of which one is found with IoU 3/4 and one is missed; a false dog; a sky of IoU 5/7; no sea."""
    true = column((CAT + 1, 4), (CAT + 2, 4), (SKY, 5))
    found = column((CAT + 1, 3), (SKY, 1), (DOG + 1, 3), (SKY, 6))
    expected_cat, expected_sky = 0.75 / (1 + 1 / 2), 5 / 7
    read = scores(found, true)
    assert read["pq_things"] == pytest.approx((expected_cat + 0) / 2)
    assert read["pq_stuff"] == pytest.approx(expected_sky)
    assert read["pq"] == pytest.approx((expected_cat + 0 + expected_sky) / 3)
    assert read["sq"] == pytest.approx((0.75 + 0 + 5 / 7) / 3)
    assert read["rq"] == pytest.approx((1 / 1.5 + 0 + 1) / 3)
    assert read["loss"] == pytest.approx(1 - read["pq"])


def test_segments_of_a_split_are_counted_together() -> None:
    """Quality is a ratio of sums over images, and not their mean."""
    true = torch.cat([column((CAT + 1, 2), (SKY, 8)), column((DOG + 1, 2), (SKY, 8))])
    found = torch.cat([column((CAT + 1, 2), (SKY, 8)), column((CAT + 1, 2), (SKY, 8))])
    read = scores(found, true)
    assert read["pq_things"] == pytest.approx((1 / (1 + 1 / 2) + 0) / 2)
    assert read["pq_stuff"] == 1.0


def test_what_nobody_has_labelled_is_held_against_no_segment() -> None:
    """Unlabelled pixels leave the union; a segment that is mostly on them, or on a crowd of its kind, is not false."""
    true = column((0, 6), (CAT + 1, 4), (DOG, 6), (SKY, 4))
    found = column((CAT + 2, 4), (CAT + 1, 6), (DOG + 1, 6), (SKY, 4))
    assert scores(found, true)["pq"] == 1.0  # of cats and skies: there are no dogs to be found
    on_the_crowd = column((0, 6), (CAT + 1, 4), (CAT + 3, 6), (SKY, 4))
    assert scores(on_the_crowd, true)["pq_things"] == pytest.approx(1 / 1.5)


def test_nothing_found_is_no_error() -> None:
    """All is missed where there was something, and an image without any label has no loss."""
    nothing = column((0, 8))
    assert scores(nothing, column((CAT + 1, 8))) == dict.fromkeys(("pq", "pq_things", "pq_stuff", "sq", "rq"), 0.0) | {
        "loss": 1.0
    }
    assert scores(nothing, nothing)["loss"] == 0.0


def test_answers_tell_of_each_segment() -> None:
    """Things with their instance; the box is the smallest one, and the mask's runs cover its area."""
    found = torch.tensor([[0, DOG + 2, DOG + 2], [SKY, DOG + 2, SKY]])[None]
    (answer,) = TASK.answers(outputs(found))
    dog, sky = answer["segments"]
    assert dog == {
        "class": "dog",
        "instance": 2,
        "area": 3,
        "box": [1, 0, 3, 2],
        "mask": {"size": [2, 3], "counts": [1, 2, 1, 1, 1]},
    }
    assert (sky["class"], sky["area"], sky["box"]) == ("sky", 2, [0, 1, 3, 2])
    assert "instance" not in sky
    assert all(isinstance(one["mask"], str) for one in with_png_masks(answer)["segments"])
    decoded = TASK.decode(outputs(found))
    assert decoded["category"].tolist() == [[[-1, 1, 1], [2, 1, 2]]]
    assert decoded["instance"].tolist() == [[[0, 2, 2], [0, 2, 0]]]


def test_maps_are_mirrored_with_their_images() -> None:
    """Only those that are chosen."""
    targets = torch.arange(8).view(2, 2, 2)
    mirrored = TASK.mirror(targets, torch.tensor([True, False]), -1)
    assert mirrored.tolist() == [[[1, 0], [3, 2]], [[4, 5], [6, 7]]]


def test_the_task_survives_plain_data() -> None:
    """As it is saved with a model; it needs categories of both kinds."""
    assert task_from_dict(TASK.to_dict()) == TASK
    with pytest.raises(ConfigError, match="stuff: need one category or more, got none"):
        Panoptic(things=("cat",), stuff=())
