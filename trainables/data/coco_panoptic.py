"""COCO's panoptic annotations: photographs in which every pixel has a category, and things are told apart.

T.-Y. Lin et al., "Microsoft COCO" (2014); A. Kirillov et al., "Panoptic segmentation" (2019). A folder holds
`annotations/panoptic_train2017.json` and `annotations/panoptic_train2017/` with one PNG an image, whose colours are
segments' numbers, and the photographs in `train2017/`; the same of `val2017`. There is no download: put them there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import cv2
import numpy as np
import numpy.typing as npt

from trainables.checked_text import RelativePath
from trainables.config import setting
from trainables.data.cache import Make, cached
from trainables.data.coco_categories import STUFF, THINGS
from trainables.data.dataset import Dataset, DatasetConfig, DataUnavailable, Progress, Split
from trainables.data.published import published_folder
from trainables.data.sampling import order
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks.panoptic import DIVISOR, Panoptic

PARTS = {"train": "train2017", "test": "val2017"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as is usual
CATEGORIES: Mapping[str, int] = {name: number for number, name in enumerate((*THINGS, *STUFF))}


@final
@dataclass(frozen=True, slots=True)
class Annotated:
    """One photograph and what is in it."""

    photograph: Path
    segments: Path
    """A PNG: red + 256 green + 65,536 blue is a segment's number."""
    kinds: Mapping[int, tuple[int, bool]]
    """Of each segment, its category and whether it is a crowd."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CocoPanoptic(DatasetConfig):
    """How many photographs, and at what size. Validation images come from train2017, test images are those of val2017.

    A photograph is stretched to the size, and its segments with it.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"folder"})

    height: int = setting(480, at_least=33, at_most=4096, help="rows of the images")
    width: int = setting(640, at_least=33, at_most=4096, help="columns of the images")
    train: int = setting(113_287, at_least=1, help="training images")
    validation: int = setting(5000, at_least=1, help="validation images; the same for every `train`")
    test: int = setting(5000, at_least=1, help="test images")
    seed: int = setting(0, at_least=0, help="of the choice of images")
    folder: RelativePath = setting(
        RelativePath(""), help="where the files are, below downloads in the data folder; empty: coco_panoptic"
    )

    @property
    def name(self) -> str:
        """`coco_panoptic`."""
        return "coco_panoptic"

    @property
    def task(self) -> Panoptic:
        """80 categories of things, 53 of stuff."""
        return Panoptic(things=THINGS, stuff=STUFF)

    @property
    def preprocessing(self) -> Preprocessing:
        """Colour, stretched to the size."""
        return Preprocessing(channels=3, height=self.height, width=self.width, mean=MEAN, std=STD)

    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The three splits; the files are read only if the dataset was not made before."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}

        def begin() -> Make:
            folder = published_folder(root, self.folder or RelativePath(self.name))
            lists = {kind: read_list(folder, part) for kind, part in PARTS.items()}
            for kind, wanted in (("train", self.train + self.validation), ("test", self.test)):
                if len(lists[kind]) < wanted:
                    raise DataUnavailable(f"{PARTS[kind]}: need {wanted:,} images, it has {len(lists[kind]):,}")
            shuffled = order(len(lists["train"]), self.seed)
            orders = {
                "validation": shuffled[: self.validation],
                "train": shuffled[self.validation :],
                "test": order(len(lists["test"]), self.seed),
            }

            def make(split: str, start: int, stop: int) -> Split:
                images = lists["test" if split == "test" else "train"]
                chosen = [images[index] for index in orders[split][start:stop]]
                return Split(
                    images=np.stack([self.preprocessing.fit(_pixels(one.photograph)) for one in chosen]),
                    targets=np.stack([self._target(one) for one in chosen]),
                )

            return make

        return cached(self, root, counts, begin, progress, spread, reserve=reserve)

    def _target(self, one: Annotated) -> npt.NDArray[np.int32]:
        # In float32, which OpenCV resizes and which holds these numbers exactly.
        target = encoded(one).astype(np.float32)
        stretched = cv2.resize(target, (self.width, self.height), interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(stretched).astype(np.int32)


def read_list(folder: Path, part: str) -> list[Annotated]:
    """The photographs of a part, such as `val2017`, in the order of their numbers.

    Raises:
        DataUnavailable: the list is not there, or is not one; the message says what is wrong.
    """
    path = folder / "annotations" / f"panoptic_{part}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataUnavailable(f"need COCO's photographs and panoptic annotations in {folder}: {error}") from error
    try:
        numbers = {one["id"]: _category(one) for one in document["categories"]}
        names = {one["id"]: RelativePath(one["file_name"]) for one in document["images"]}
        return [
            Annotated(
                names[one["image_id"]].below(folder / part),
                RelativePath(one["file_name"]).below(path.with_suffix("")),
                {each["id"]: (numbers[each["category_id"]], bool(each["iscrowd"])) for each in one["segments_info"]},
            )
            for one in sorted(document["annotations"], key=lambda one: int(one["image_id"]))
        ]
    except KeyError as error:
        raise DataUnavailable(f"{path}: there is no {error}") from error
    except (TypeError, ValueError) as error:
        raise DataUnavailable(f"{path}: {error}") from error


def encoded(one: Annotated) -> npt.NDArray[np.int32]:
    """Its target (see `Panoptic`) `[h, w]`, at the size of the photograph; segments without a category are void.

    Raises:
        DataUnavailable: the PNG cannot be read, or has too many things.
    """
    pixels = _pixels(one.segments).astype(np.int64)
    segments, places = np.unique(pixels @ np.array([1, 256, 65_536]), return_inverse=True)
    targets, count = np.zeros(len(segments), np.int32), 0
    for place, segment in enumerate(segments.tolist()):
        if segment not in one.kinds:
            continue
        category, crowd = one.kinds[segment]
        is_one = category < len(THINGS) and not crowd
        count += is_one
        targets[place] = (category + 1) * DIVISOR + (count if is_one else 0)
    if count >= DIVISOR:
        raise DataUnavailable(f"{one.segments}: need fewer than {DIVISOR} things, got {count}")
    return targets[places].reshape(pixels.shape[:2])


def _category(described: Mapping[str, Any]) -> int:
    name, is_thing = described["name"], bool(described["isthing"])
    if name not in CATEGORIES or is_thing != (CATEGORIES[name] < len(THINGS)):
        raise ValueError(f"need a category of COCO, got {name!r} as a {'thing' if is_thing else 'kind of stuff'}")
    return CATEGORIES[name]


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataUnavailable(f"cannot read the image {path}")
    return np.asarray(image).astype(np.uint8, copy=False)
