"""COCO's panoptic annotations, read from files as they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from trainables.data.coco_categories import STUFF, THINGS
from trainables.data.coco_panoptic import CocoPanoptic, encoded, read_list
from trainables.data.dataset import DataUnavailable

SEA = (1 + len(THINGS) + STUFF.index("sea")) * 1000
KITE = (1 + THINGS.index("kite")) * 1000
CATEGORIES = [{"id": 38, "name": "kite", "isthing": 1}, {"id": 155, "name": "sea", "isthing": 0}]


def part(folder: Path, name: str, count: int, **changes: Any) -> None:
    """Photographs of 4 x 6 pixels: two kites and a crowd of them over a sea; the last column is unlabelled."""
    annotations = folder / "annotations" / f"panoptic_{name}"
    annotations.mkdir(parents=True)
    (folder / name).mkdir()
    numbers = np.array([[70_000, 70_000, 300, 300, 5, 0], *[[9, 9, 9, 9, 9, 0]] * 3])
    pixels = np.stack([numbers // 65_536, numbers // 256 % 256, numbers % 256], axis=2)  # blue, green, red
    kinds = [(70_000, 38, 0), (300, 38, 0), (5, 38, 1), (9, 155, 0)]
    for i in range(count):
        cv2.imwrite(str(folder / name / f"{i}.png"), np.full((4, 6, 3), i, np.uint8))
        cv2.imwrite(str(annotations / f"{i}.png"), pixels.astype(np.uint8))
    segments = [{"id": number, "category_id": kind, "iscrowd": crowd} for number, kind, crowd in kinds]
    document = {
        "categories": CATEGORIES,
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(count)],
        "annotations": [
            {"image_id": i, "file_name": f"{i}.png", "segments_info": segments} for i in reversed(range(count))
        ],
    }
    annotations.with_suffix(".json").write_text(json.dumps(document | changes))


def test_segments_become_categories_and_instances(tmp_path: Path) -> None:
    """Numbers are told by all three colours; things count up, a crowd and stuff are instance 0, the rest is void."""
    part(tmp_path, "val2017", 2)
    listed = read_list(tmp_path, "val2017")
    assert [one.photograph.name for one in listed] == ["0.png", "1.png"]
    target = encoded(listed[0])
    assert sorted(set(target[0].tolist())) == [0, KITE, KITE + 1, KITE + 2]
    assert (target[0, 0] == target[0, 1], target[0, 4], target[0, 5]) == (True, KITE, 0)
    assert (target[1:, :5] == SEA).all()


def test_photographs_and_their_segments_are_stretched_alike(tmp_path: Path) -> None:
    """No number arises that is not there; splits share no photograph, and test images are the published ones."""
    folder = tmp_path / "downloads" / "files"
    part(folder, "train2017", 5)
    part(folder, "val2017", 3)
    settings = {"height": 36, "width": 48, "train": 3, "validation": 2, "test": 3, "folder": "files"}
    dataset = CocoPanoptic.from_dict(settings).load(tmp_path)
    assert dataset.train.targets.shape == (3, 36, 48)
    assert set(np.unique(dataset.train.targets)) == {0, KITE, KITE + 1, KITE + 2, SEA}
    assert (dataset.test.targets[:, 9:, :40] == SEA).all()
    assert (dataset.test.targets[:, :9, :16] == dataset.test.targets[:, :1, :1]).all()
    seen = [int(image.max()) for split in (dataset.train, dataset.validation) for image in split.images]
    assert sorted(seen) == list(range(5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 1, "name": "unicorn", "isthing": 1}]}, "need a category of COCO, got 'unicorn'"),
        ({"categories": [{"id": 1, "name": "sea", "isthing": 1}]}, "got 'sea' as a thing"),
        ({"categories": CATEGORIES[:1]}, "there is no 155"),
        ({"images": [{"id": 0, "file_name": "../0.png"}]}, "need a relative path"),
        ({"annotations": 3}, "panoptic_val2017.json"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """With its path and what is wrong: an unknown category, a number without one, a path that leads elsewhere."""
    part(tmp_path, "val2017", 1, **changes)
    with pytest.raises(DataUnavailable, match=message):
        read_list(tmp_path, "val2017")


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    """The folder that needs them, or how many there are."""
    config = CocoPanoptic(train=1, validation=1, test=1)
    with pytest.raises(DataUnavailable, match=r"need COCO's photographs and panoptic annotations in .*coco_panoptic"):
        config.load(tmp_path)
    folder = tmp_path / "downloads" / "coco_panoptic"
    part(folder, "train2017", 1)
    part(folder, "val2017", 1)
    with pytest.raises(DataUnavailable, match="train2017: need 2 images, it has 1"):
        config.load(tmp_path)
    (folder / "val2017" / "0.png").unlink()
    (one,) = read_list(folder, "val2017")
    one.segments.write_bytes(b"no image")
    with pytest.raises(DataUnavailable, match="cannot read the image"):
        encoded(one)
