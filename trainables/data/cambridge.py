"""Cambridge Landmarks: photographs of outdoor scenes with the poses of the cameras that took them.

A. Kendall, M. Grimes, R. Cipolla, "PoseNet", ICCV 2015; poses from structure from motion. A scene is a folder with
`dataset_train.txt` and `dataset_test.txt`: three lines of heading, then `seq1/frame00001.png x y z w p q r` for each
image (metres, and a unit quaternion with the scalar first), beside the folders of images that they name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, final

import cv2
import numpy as np
import numpy.typing as npt

from trainables.checked_text import RelativePath
from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.dataset import Dataset, DatasetConfig, DataUnavailable, Progress, Split
from trainables.data.published import published_folder
from trainables.data.sampling import order
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks.pose import PoseRegression

HEADING_LINES = 3
FILES = {"train": "dataset_train.txt", "test": "dataset_test.txt"}
Scene = Literal["KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch", "Street"]
BETA: Mapping[str, float] = {"KingsCollege": 500, "OldHospital": 1500, "ShopFacade": 100, "StMarysChurch": 250}
"""The weight of the orientation in the loss, by scene (F. Walch et al. 2017); `Street` has none there."""
OTHER_BETA = 500.0
CROP = 224 / 256  # of images whose short side is 256 pixels, 224 x 224 are cut out


@final
@dataclass(frozen=True, slots=True)
class Photograph:
    """One line of a list: the image's path in the scene's folder, and its camera's pose `[7]`."""

    path: PurePosixPath
    pose: tuple[float, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cambridge(DatasetConfig):
    """Which scene, and how many of its images. Validation images come from the published training list.

    Neighbouring frames of a walk are nearly alike, and validation images are drawn at random among the training ones:
    validation errors are smaller than test errors, whose images are of other walks.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"folder", "margin"})

    scene: Scene = setting("KingsCollege", help="the scene, by the name of its published folder")
    image_size: int = setting(224, at_least=16, at_most=1024, help="rows and columns of the square cut from the middle")
    margin: int = setting(
        0,
        at_least=0,
        help="pixels that training images keep on each side: training cuts a part of image_size out, at random; 16 "
        "beside 224 are the published ones, but for photographs' left and right ends",
    )
    train: int = setting(1098, at_least=1, help="training images")
    validation: int = setting(122, at_least=1, help="validation images; the same for every `train`")
    test: int = setting(343, at_least=1, help="test images")
    seed: int = setting(0, at_least=0, help="of the choice of images")
    folder: RelativePath = setting(
        RelativePath(""),
        help="where the scene's lists and images are, below downloads in the data folder; empty: cambridge/<scene>",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Training images are parts of the photographs' middle."""
        if self.margin > (most := self.image_size // 14):
            yield "margin", f"need <= {most}, a 14th of image_size, or it is beyond the photograph, got {self.margin}"

    @property
    def _kept(self) -> Preprocessing:
        """How training images are kept: as a model takes them, and `margin` more on each side."""
        side = self.image_size + 2 * self.margin
        share = min(1.0, CROP * side / self.image_size)
        return dataclasses.replace(self.preprocessing, height=side, width=side, crop=share)

    @property
    def name(self) -> str:
        """`cambridge`."""
        return "cambridge"

    @property
    def task(self) -> PoseRegression:
        """Where the camera was, and how it was turned."""
        return PoseRegression(beta=BETA.get(self.scene, OTHER_BETA))

    @property
    def preprocessing(self) -> Preprocessing:
        """Colour, the middle of the image, with values around 0."""
        return Preprocessing(
            channels=3,
            height=self.image_size,
            width=self.image_size,
            crop=CROP,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        )

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits; the files are read only if the dataset was not made before."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            folder = published_folder(root, self.folder or RelativePath(f"{self.name}/{self.scene}"))
            lists = {kind: read_list(folder / file) for kind, file in FILES.items()}
            for kind, wanted in (("train", self.train + self.validation), ("test", self.test)):
                if len(lists[kind]) < wanted:
                    raise DataUnavailable(
                        f"{self.scene}: need {wanted:,} images of {FILES[kind]}, it names {len(lists[kind]):,}"
                    )
            shuffled = order(len(lists["train"]), self.seed)
            orders = {
                "validation": shuffled[: self.validation],
                "train": shuffled[self.validation :],
                "test": order(len(lists["test"]), self.seed),
            }
            middle = mean_rotation(np.array([one.pose[3:] for one in lists["train"]]))

            def make(split: str, start: int, stop: int) -> Split:
                photographs = lists["test" if split == "test" else "train"]
                chosen = [photographs[index] for index in orders[split][start:stop]]
                poses = np.array([one.pose for one in chosen])
                poses[poses[:, 3:] @ middle < 0, 3:] *= -1
                shape = self._kept if split == "train" else self.preprocessing
                images = [shape.fit(read_image(folder / one.path)) for one in chosen]
                return Split(images=np.stack(images), targets=poses.astype(np.float32))

            return make

        return cached(self, root, counts, begin, progress, spread, reserve=reserve, margin=self.margin)


def read_list(path: Path) -> list[Photograph]:
    """The photographs that a list names.

    Raises:
        DataUnavailable: there is no such file, or a line is not a path and a pose; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataUnavailable(
            f"need a scene of Cambridge Landmarks, with its images, in {path.parent}: {error}"
        ) from error
    return [
        _photograph(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if number > HEADING_LINES and line.strip()
    ]


def _photograph(line: str, where: str) -> Photograph:
    name, *numbers = line.split()
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataUnavailable(f"{where}: need a path inside the scene's folder, got {name!r}")
    try:
        pose = tuple(map(float, numbers))
    except ValueError:
        pose = ()
    length = math.hypot(*pose[3:])
    if len(pose) != 7 or not math.isfinite(sum(pose)) or not 0.9 < length < 1.1:
        raise DataUnavailable(f"{where}: need a path, a position and a unit quaternion, got {line!r}")
    return Photograph(path, (*pose[:3], *(number / length for number in pose[3:])))


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """The pixels, RGB `[h, w, 3]`.

    Raises:
        DataUnavailable: it is not there, or no image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataUnavailable(f"cannot read the image {path}")
    pixels: npt.NDArray[np.uint8] = image.astype(np.uint8, copy=False)
    return pixels


def mean_rotation(quaternions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The unit quaternion nearest to all of `[n, 4]`, whose signs do not matter (F. L. Markley et al. 2007, eq. 12).

    q and -q are one rotation, and a loss between quaternions needs one of the two: that on this mean's side.
    """
    _, vectors = np.linalg.eigh(quaternions.T @ quaternions)
    mean = vectors[:, -1]
    return np.asarray(mean if mean[np.abs(mean).argmax()] > 0 else -mean)
