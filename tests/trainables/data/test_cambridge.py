"""Cambridge Landmarks, read from files as they are published."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.checked_text import RelativePath
from trainables.config import ConfigError
from trainables.data.cambridge import BETA, Cambridge, mean_rotation, read_list
from trainables.data.dataset import DataUnavailable
from trainables.preprocessing import Preprocessing
from trainables.training import Training
from trainables.trial import TrialConfig

HEADING = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"


def scene(folder: Path, training: int = 8, test: int = 4) -> None:
    """A scene of plain images; image i is of grey i, at x = i; every other quaternion has the opposite sign."""
    for name, first, count in (("train", 0, training), ("test", 100, test)):
        lines = []
        for i in range(first, first + count):
            path = folder / f"seq{i % 2 + 1}" / f"frame{i:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((108, 192, 3), i, np.uint8))
            sign = (-1) ** i
            lines.append(f"{path.relative_to(folder)} {i} -2.5 1e-1 {sign * 0.6} {sign * 0.8:.6f} 0 0")
        (folder / f"dataset_{name}.txt").write_text(HEADING + "\n".join(lines) + "\n")


def test_images_keep_their_poses(tmp_path: Path) -> None:
    """Training and validation images come from the training list, each at most once; all signs are alike."""
    scene(tmp_path / "downloads" / "files")
    config = Cambridge(image_size=32, train=5, validation=3, test=4, folder=RelativePath("files"))
    dataset = config.load(tmp_path)
    seen = []
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.shape[1:] == (3, 32, 32)
        for image, pose in zip(split.images, split.targets, strict=True):
            assert np.unique(image).tolist() == [int(pose[0])]
            np.testing.assert_allclose(pose[1:], [-2.5, 0.1, 0.6, 0.8, 0, 0], atol=1e-6)
            seen.append(int(pose[0]))
    assert sorted(seen) == [*range(8), *range(100, 104)]
    assert dataset.task.beta == BETA["KingsCollege"]


def test_the_default_place_is_the_scenes_folder_among_the_downloads(tmp_path: Path) -> None:
    """Without files there, the error names the folder that needs them."""
    with pytest.raises(DataUnavailable, match=r"downloads/cambridge/ShopFacade"):
        Cambridge(scene="ShopFacade").load(tmp_path)
    scene(tmp_path / "downloads" / "cambridge" / "ShopFacade")
    with pytest.raises(DataUnavailable, match=r"need 90 images of dataset_train.txt, it names 8"):
        Cambridge(scene="ShopFacade", train=80, validation=10, test=4).load(tmp_path)


def test_training_images_keep_a_margin_to_cut_from(tmp_path: Path) -> None:
    """The middle of what training sees is what validation would see of the photograph; every step sees a part of it."""
    scene(tmp_path / "downloads" / "files")
    folder = tmp_path / "downloads" / "files"
    rows, columns = np.mgrid[:108, :192]
    for path in folder.glob("seq*/*.png"):
        cv2.imwrite(str(path), np.dstack([rows, columns, rows + columns]).clip(0, 255).astype(np.uint8))
    settings = {"image_size": 84, "train": 5, "validation": 3, "test": 4, "folder": "files"}
    plain, wide = (Cambridge.from_dict({**settings, "margin": margin}) for margin in (0, 6))
    assert plain.digest == Cambridge.from_dict(settings).digest
    kept, narrow = wide.load(tmp_path), plain.load(tmp_path)
    assert kept.train.images.shape == (5, 3, 96, 96)
    assert kept.validation.images.shape == (3, 3, 84, 84)
    assert np.abs(kept.train.images[:, :, 6:-6, 6:-6].astype(int) - narrow.train.images).max() <= 2
    values = {
        "family": "pose_net",
        "model": {"width": 0.05, "hidden_size": 3},
        "train": {"batch_size": 5, "max_epochs": 1},
        "data": wide.to_dict(),
    }
    training = Training(TrialConfig.from_dict(values), kept, device=torch.device("cpu"))
    (inputs, _), *_ = training._batches(range(1))
    assert inputs.shape == (5, 3, 84, 84)
    assert math.isfinite(training.advance()["validation/loss"])


def test_a_margin_beyond_the_photograph_is_refused() -> None:
    """The middle that networks see is 224 of 256 pixels of the short side: 16 are left on each side."""
    assert Cambridge(margin=16).margin == 16
    with pytest.raises(ConfigError, match=r"margin: need <= 16, .* got 17"):
        Cambridge(margin=17)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("seq1/a.png 1 2 3 1 0 0", "a path, a position and a unit quaternion"),
        ("seq1/a.png 1 2 3 1 0 0 0 0", "a path, a position and a unit quaternion"),
        ("seq1/a.png 1 2 x 1 0 0 0", "a path, a position and a unit quaternion"),
        ("seq1/a.png 1 2 nan 1 0 0 0", "a path, a position and a unit quaternion"),
        ("seq1/a.png 1 2 3 0 0 0 0", "a path, a position and a unit quaternion"),
        ("../a.png 1 2 3 1 0 0 0", "inside the scene's folder"),
        ("/etc/a.png 1 2 3 1 0 0 0", "inside the scene's folder"),
    ],
)
def test_a_line_that_is_no_photograph_is_named(line: str, fault: str, tmp_path: Path) -> None:
    """With its number in the file."""
    (tmp_path / "list.txt").write_text(HEADING + "seq1/b.png 1 2 3 1 0 0 0\n" + line)
    with pytest.raises(DataUnavailable, match=rf"list.txt, line 5: .*{fault}"):
        read_list(tmp_path / "list.txt")


@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing but a list of photographs or the one error comes of it."""
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_text(HEADING + text)
    try:
        photographs = read_list(path)
    except DataUnavailable:
        return
    assert all(len(one.pose) == 7 for one in photographs)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    """The list may name what is not there."""
    folder = tmp_path / "downloads" / "cambridge" / "KingsCollege"
    scene(folder)
    (folder / "seq1" / "frame00100.png").unlink()
    with pytest.raises(DataUnavailable, match=r"frame00100\.png"):
        Cambridge(image_size=32, train=5, validation=3, test=4).load(tmp_path)


def test_the_mean_rotation_does_not_depend_on_signs() -> None:
    """Quaternions around one, half of them negated."""
    random = np.random.default_rng(0)
    middle = np.array([0.5, -0.5, 0.1, 0.7])
    middle /= np.linalg.norm(middle)
    scattered = middle + 0.05 * random.normal(size=(200, 4))
    found = mean_rotation(scattered * random.choice([-1, 1], size=(200, 1)))
    assert abs(found @ middle) > 0.999


def test_a_crop_is_of_the_middle_and_has_the_inputs_shape() -> None:
    """Half of the sides of the largest square in the middle, from a wide and from a tall image."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 30:50] = 255
    square = Preprocessing(channels=3, height=20, width=20, crop=0.5, mean=(0, 0, 0), std=(1, 1, 1))
    assert square.fit(image).min() == 255
    assert square.fit(np.ascontiguousarray(image.transpose(1, 0, 2))).min() == 255
    whole = Preprocessing(channels=3, height=20, width=20, crop=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    assert whole.fit(image)[0].mean() == pytest.approx(255 / 4)
