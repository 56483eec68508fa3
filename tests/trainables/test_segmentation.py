"""Segmentation: losses, scores and answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score, recall_score
from torch.nn import functional

from trainables.augmentation import flip
from trainables.config import ConfigError
from trainables.data.cabc.config import ClutteredABC
from trainables.data.pathfinder.config import Pathfinder
from trainables.measured import Measured
from trainables.tasks import Segmentation, task_from_dict
from trainables.trial import TrialConfig

TASK = Segmentation(covers="path")


def some(images: int = 6, side: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, 2, side, side, generator=generator)
    return logits, (torch.rand(images, side, side, generator=generator) < 0.2).to(torch.uint8)


def test_scores_are_of_all_pixels_together() -> None:
    """In whatever batches they come, they are those of scikit-learn over every pixel of the split."""
    logits, masks = some()
    measured = Measured()
    for batch in (slice(0, 1), slice(1, 6)):
        measured.add(TASK.measure(logits[batch], masks[batch]))
    found = measured.read("test", TASK)
    true, said = masks.flatten().numpy(), logits.argmax(dim=1).flatten().numpy()
    expected = {
        "test/f1": f1_score(true, said),
        "test/iou": jaccard_score(true, said),
        "test/accuracy": accuracy_score(true, said),
        "test/balanced_accuracy": balanced_accuracy_score(true, said),
        "test/recall": recall_score(true, said),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert set(found) == {f"test/{name}" for name in TASK.METRICS}
    assert found["test/loss"] == pytest.approx(float(TASK.loss(logits, masks)), abs=1e-6)


def test_an_image_that_is_all_ground_has_scores() -> None:
    """What would divide nothing by nothing is 0, and every score is finite."""
    logits = torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)], dim=1)
    scores = TASK.summarize(TASK.measure(logits, torch.zeros(1, 4, 4, dtype=torch.uint8)))
    assert all(map(math.isfinite, scores.values()))
    assert (scores["f1"], scores["accuracy"]) == (0.0, 1.0)


def test_the_focal_loss_is_that_of_its_paper() -> None:
    """(1 - p)^focus times the cross-entropy, p the probability of the right class; without focus, cross-entropy."""
    logits, masks = some()
    p = logits.softmax(dim=1).gather(1, masks.long()[:, None])[:, 0]
    torch.testing.assert_close(TASK.loss(logits, masks), (-((1 - p) ** 2) * p.log()).mean())
    plain = functional.cross_entropy(logits, masks.long())
    torch.testing.assert_close(Segmentation(focus=0.0).loss(logits, masks), plain)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_run_lengths_give_back_the_mask(rows: list[list[bool]]) -> None:
    """Ground and object take turns, ground first, and nothing is lost."""
    mask = np.array(rows)
    logits = torch.stack([torch.zeros(mask.shape), torch.tensor(mask).float() - 0.5])[None]
    answer = TASK.answers(logits)[0]
    counts = answer["mask"]["counts"]
    values = np.arange(len(counts)) % 2 == 1
    assert np.array_equal(np.repeat(values, counts).reshape(answer["mask"]["size"]), mask)
    assert answer["share"] == pytest.approx(mask.mean())
    assert np.array_equal(TASK.decode(logits)["mask"][0].numpy() > 0.5, mask)


@pytest.mark.parametrize(
    "config",
    [
        Pathfinder(path_length=6, image_size=60, masks=True, train=6, validation=2, test=2),
        ClutteredABC(image_size=60, masks=True, train=6, validation=2, test=2),
    ],
    ids=lambda config: config.name,
)
def test_masks_are_kept_and_flipped_with_their_images(config: Pathfinder | ClutteredABC, tmp_path: Path) -> None:
    """They lie on disk as the task says, cover lit pixels, and still do so when both are mirrored."""
    dataset = config.load(tmp_path)
    assert dataset.train.targets.dtype == np.uint8
    assert dataset.train.targets.shape == (6, 60, 60)
    images, masks = (torch.from_numpy(np.array(part)) for part in (dataset.train.images, dataset.train.targets))
    assert ((masks == 0) | (masks == 1)).all()
    covered = [float((image[0] > 60)[mask > 0].float().mean()) for image, mask in zip(images, masks, strict=True)]
    assert min(covered) > 0.5  # a ring is black inside
    assert 0.0005 < float(masks.float().mean()) < 0.2
    flipped = flip(images, masks, "both", task=dataset.task, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(flipped[0], images)
    moved = [float((image[0] > 60)[mask > 0].float().mean()) for image, mask in zip(*flipped, strict=True)]
    assert moved == pytest.approx(covered)
    assert task_from_dict(dataset.task.to_dict()) == dataset.task


def test_a_dataset_of_classes_keeps_its_name_on_disk() -> None:
    """Asking for masks names another folder; not asking names the same as before there were any."""
    assert Pathfinder(masks=True).digest != Pathfinder().digest
    assert Pathfinder(masks=False).digest == Pathfinder().digest


def test_a_family_is_not_asked_what_it_cannot_answer() -> None:
    """A classifier on masks is a fault of the spec."""
    with pytest.raises(ConfigError, match="asks for segmentation, and narrow_resnet answers classification"):
        TrialConfig.from_dict({"family": "narrow_resnet", "data": {"name": "pathfinder", "masks": True}})
