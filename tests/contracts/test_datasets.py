"""What every dataset in the table promises."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from trainables.config import ConfigError
from trainables.data.dataset import Dataset, DatasetConfig
from trainables.data.datasets import DATASETS
from trainables.tasks import Classification

ROOT = Path(__file__).parents[2]

SMALL: Mapping[str, Mapping[str, Any]] = {
    "cabc": {"image_size": 64, "train": 20, "validation": 5, "test": 5},
    "cambridge": {"scene": "ShopFacade", "image_size": 32, "train": 12, "validation": 4, "test": 4},
    "cifar10": {"train": 150, "validation": 60, "test": 40},
    "coco_panoptic": {"height": 36, "width": 48, "train": 12, "validation": 4, "test": 4},
    "digits": {"image_size": 16, "train": 300, "validation": 60, "test": 40},
    "mnist": {"train": 150, "validation": 60, "test": 40},
    "pathfinder": {"path_length": 6, "image_size": 64, "train": 40, "validation": 10, "test": 10},
    "scenes": {"image_size": 40, "train": 12, "validation": 4, "test": 4},
    "synthetic_scene": {"image_size": 32, "train": 12, "validation": 4, "test": 4},
}
"""A small config of every dataset; a new row in the table needs one here."""

DIGESTS = {
    "cabc": "73b980a89df0ba2b",
    "cambridge": "5eeabe661cb3c3de",
    "cifar10": "27ea136e348fa256",
    "coco_panoptic": "91135c83edb47dfa",
    "digits": "031783cc5fff2f4c",
    "mnist": "efd6bdd272925ad3",
    "pathfinder": "a55a6693b930261c",
    "scenes": "45606163d8d49538",
    "synthetic_scene": "41337dd0f6efb99c",
}
"""Digests of the small configs: they name folders on users' disks and may not change by accident."""

CONTENT = {
    "cabc": "42636223ed8861e1",
    "cambridge": "f83d611bd36dd63f",
    "cifar10": "d68a8c39319dd186",
    "coco_panoptic": "3298eb23886633b3",
    "digits": "be99349fb3cd2a4f",
    "mnist": "03664ad6a9ba1abe",
    "pathfinder": "9ab5df840931aad3",
    "scenes": "a1ac836adb2d8143",
    "synthetic_scene": "dfab4b3d1a075279",
}
"""Hashes of the small datasets: the same config gives the same bytes on every machine and with every release."""

IMPOSSIBLE = [
    (name, count, value, "need") for name in SMALL for count in ("train", "validation", "test") for value in (0, -1)
]


def small(name: str) -> DatasetConfig:
    """The small config of a dataset."""
    return DATASETS[name].from_dict(SMALL[name])


def provide(name: str, root: Path) -> None:
    """Put small files in their published formats where a dataset looks for them."""
    folder = root / "downloads" / name
    random = np.random.PCG64(0)

    def noise(*shape: int) -> npt.NDArray[np.uint8]:
        return (random.random_raw(math.prod(shape)) % 256).astype(np.uint8).reshape(shape)

    if name == "mnist":
        folder.mkdir(parents=True)
        for part, n in (("train", 240), ("t10k", 50)):
            head = struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(head + noise(n, 28, 28).tobytes())
            head = struct.pack(">4BI", 0, 0, 8, 1, n)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + (noise(n) % 10).tobytes())
    if name == "cifar10":
        folder.mkdir(parents=True)
        for part in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
            records = np.concatenate([noise(50, 1) % 10, noise(50, 3 * 32 * 32)], axis=1)
            (folder / f"{part}.bin").write_bytes(records.tobytes())
    if name == "coco_panoptic":
        for part, n in (("train2017", 18), ("val2017", 6)):
            annotations = folder / "annotations" / f"panoptic_{part}"
            (folder / part).mkdir(parents=True)
            annotations.mkdir(parents=True)
            listed = []
            for i, pixels in enumerate(noise(n, 40, 60, 3)):
                cv2.imwrite(str(folder / part / f"{i}.jpg"), pixels)
                segments = np.zeros((40, 60, 3), np.uint8)
                segments[: 10 + i, :, 2], segments[10 + i :, :30, 2] = 1, 2  # red, and the rest is unlabelled
                cv2.imwrite(str(annotations / f"{i}.png"), segments)
                kinds = [{"id": 1, "category_id": 7, "iscrowd": 0}, {"id": 2, "category_id": 9, "iscrowd": 0}]
                listed.append({"image_id": i, "file_name": f"{i}.png", "segments_info": kinds})
            document = {
                "categories": [
                    {"id": 7, "name": "kite", "isthing": 1},
                    {"id": 9, "name": "sea", "isthing": 0},
                ],
                "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(n)],
                "annotations": listed,
            }
            annotations.with_suffix(".json").write_text(json.dumps(document))
    if name == "cambridge":
        for part, n in (("train", 18), ("test", 6)):
            lines = ["", "", ""]
            for i, pixels in enumerate(noise(n, 48, 64, 3)):
                path = folder / "ShopFacade" / part / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
                lines.append(f"{part}/{i}.png {i} 0.5 -1.25 0.6 0.8 0 0")
            (folder / "ShopFacade" / f"dataset_{part}.txt").write_text("\n".join(lines))


def content(dataset: Dataset) -> str:
    """A hash of every byte of a dataset."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.validation, dataset.test):
        digest.update(split.images.tobytes())
        digest.update(split.targets.tobytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="module", params=sorted(DATASETS))
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dataset, DatasetConfig, Path]:
    """Every dataset once, small: itself, its config and its root."""
    root = tmp_path_factory.mktemp(request.param)
    config = small(request.param)
    provide(config.name, root)
    return config.load(root), config, root


def test_every_dataset_has_a_small_config_here() -> None:
    """A dataset added to the table is covered by this file, or this test fails."""
    assert set(SMALL) == set(DATASETS)


def test_splits_are_the_images_and_targets_that_the_config_says(loaded: tuple[Dataset, DatasetConfig, Path]) -> None:
    """Counts, dtypes, shapes and the range of the targets."""
    dataset, config, _ = loaded
    assert dataset.name == config.name
    assert dataset.task == config.task
    assert dataset.preprocessing == config.preprocessing
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        count = SMALL[config.name][name]
        assert split.images.dtype == np.uint8
        assert split.images.shape == (count, *config.preprocessing.input_shape)
        assert split.targets.dtype == np.dtype(dataset.task.TARGET)
        assert split.targets.shape == (count, *dataset.task.target_shape(config.preprocessing.input_shape))
        if isinstance(dataset.task, Classification):
            assert set(np.unique(split.targets)) <= set(range(len(dataset.task.classes)))


def test_splits_share_no_image(loaded: tuple[Dataset, DatasetConfig, Path]) -> None:
    """No image of one split has the bytes of an image of another."""
    dataset, _, _ = loaded
    seen = [{image.tobytes() for image in split.images} for split in (dataset.train, dataset.validation, dataset.test)]
    assert seen[0].isdisjoint(seen[1] | seen[2])
    assert seen[1].isdisjoint(seen[2])


def test_arrays_are_read_only_memory_maps(loaded: tuple[Dataset, DatasetConfig, Path]) -> None:
    """Trials share one copy in the page cache, and none can spoil it for the others."""
    dataset, _, _ = loaded
    assert isinstance(dataset.train.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.images[0] = 0


def test_loading_again_gives_the_same_bytes_and_makes_nothing(loaded: tuple[Dataset, DatasetConfig, Path]) -> None:
    """The second load opens what the first wrote, without a step of progress."""
    dataset, config, root = loaded
    steps: list[tuple[int, int]] = []
    again = config.load(root, lambda done, total: steps.append((done, total)))
    assert content(again) == content(dataset)
    assert steps == []


def test_making_it_elsewhere_gives_the_same_bytes(loaded: tuple[Dataset, DatasetConfig, Path], tmp_path: Path) -> None:
    """Nothing of the content depends on the folder, the time or an earlier run, and progress ends at all images."""
    dataset, config, _ = loaded
    provide(config.name, tmp_path)
    steps: list[tuple[int, int]] = []
    again = config.load(tmp_path, lambda done, total: steps.append((done, total)))
    assert content(again) == content(dataset)
    total = sum(SMALL[config.name][split] for split in ("train", "validation", "test"))
    assert steps[-1] == (total, total)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_digest_and_content_are_those_of_the_first_release(loaded: tuple[Dataset, DatasetConfig, Path]) -> None:
    """A change here must be meant: then raise the dataset's RECIPE and write the new values."""
    dataset, config, _ = loaded
    assert (config.digest, content(dataset)) == (DIGESTS[config.name], CONTENT[config.name])


def test_another_seed_gives_other_images(loaded: tuple[Dataset, DatasetConfig, Path], tmp_path: Path) -> None:
    """The seed reaches the content, and the digest tells the two apart."""
    dataset, config, _ = loaded
    other = DATASETS[config.name].from_dict({**SMALL[config.name], "seed": 1})
    assert other.digest != config.digest
    provide(config.name, tmp_path)
    assert content(other.load(tmp_path)) != content(dataset)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_config_survives_a_round_trip_through_plain_data(name: str) -> None:
    """What a header or a spec keeps reads back to an equal config."""
    config = small(name)
    values = config.to_dict()
    assert values.pop("name") == name
    assert DATASETS[name].from_dict(values) == config


@pytest.mark.parametrize(("name", "field", "value", "rule"), IMPOSSIBLE)
def test_impossible_config_names_the_rule(name: str, field: str, value: int, rule: str) -> None:
    """A config that no data can meet is refused before anything is made."""
    with pytest.raises(ConfigError, match=rule) as caught:
        DATASETS[name].from_dict({**SMALL[name], field: value})
    assert field in {fault.path[0] for fault in caught.value.faults}


def test_reading_the_table_compiles_nothing() -> None:
    """Whoever only reads configs waits for no compiler, in a process of its own since this one has compiled already."""
    script = (
        "import sys, trainables.data.datasets; print([name for name in ('numba', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
