"""Datasets on disk can be listed, looked at and removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainables.data.digits import Digits
from trainables.data.inventory import remove, stored
from trainables.data.sheet import GREY, contact_sheet


def test_lists_what_was_made_and_removes_one(tmp_path: Path) -> None:
    """Two datasets with their configs and sizes; removing one leaves the other, and it can be made again."""
    small, large = Digits(image_size=8), Digits(image_size=16)
    small.load(tmp_path)
    large.load(tmp_path)
    (tmp_path / "downloads").mkdir()
    listed = {dataset.digest: dataset for dataset in stored(tmp_path)}
    assert {digest: dataset.config for digest, dataset in listed.items()} == {
        config.digest: config.to_dict() for config in (small, large)
    }
    assert all(dataset.finished and dataset.name == "digits" for dataset in listed.values())
    # Images are a byte a pixel, targets eight bytes, and heads, header and stamp a few kilobytes.
    assert 0 <= listed[large.digest].size - 1797 * (16 * 16 + 8) < 8000
    remove(listed[small.digest])
    assert [dataset.digest for dataset in stored(tmp_path)] == [large.digest]
    assert len(small.load(tmp_path).train) == 1197


def test_unfinished_and_spoiled_datasets_are_listed_as_such(tmp_path: Path) -> None:
    """A folder that is being made has no config yet; one with a broken header will be made again."""
    assert stored(tmp_path / "nowhere") == []
    Digits(image_size=8).load(tmp_path)
    (whole,) = stored(tmp_path)
    (whole.folder / "header.json").write_text("{")
    (tmp_path / f"pathfinder-{'0' * 16}.partial").mkdir()
    assert [(dataset.name, dataset.finished) for dataset in stored(tmp_path)] == [
        ("digits", False),
        ("pathfinder", False),
    ]


def test_contact_sheet_shows_images_in_order(tmp_path: Path) -> None:
    """Eight columns of 8x8 digits, each pixel enlarged 12 times, with a caption under each."""
    dataset = Digits(image_size=8).load(tmp_path)
    sheet = contact_sheet(dataset, dataset.test, count=20, columns=8)
    assert sheet.shape == (3 * (96 + 16 + 4) + 4, 8 * (96 + 4) + 4, 3)
    second_row_first = sheet[4 + 116 : 4 + 116 + 96 : 12, 4 : 4 + 96 : 12, 0]
    assert np.array_equal(second_row_first, dataset.test.images[8, 0])
    assert (sheet[100:116, 4:100] > GREY).any()
    assert contact_sheet(dataset, dataset.test, count=3).shape[1] == 3 * 100 + 4


@pytest.mark.parametrize(("count", "columns"), [(0, 6), (6, 0)])
def test_contact_sheet_of_nothing_is_refused(tmp_path: Path, count: int, columns: int) -> None:
    """The rule and both numbers are in the message."""
    dataset = Digits(image_size=8).load(tmp_path)
    with pytest.raises(ValueError, match=f"got {count} and {columns}"):
        contact_sheet(dataset, dataset.test, count=count, columns=columns)
