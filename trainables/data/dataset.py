"""What a dataset is: three splits of uint8 images, the task they pose, and how an image becomes an input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from trainables.config import Config, setting
from trainables.data.spread import Spread, over_threads
from trainables.preprocessing import Preprocessing
from trainables.tasks import Task

Progress = Callable[[int, int], None]
"""Told (items done, items in all) while data is made."""


@dataclass(frozen=True, slots=True)
class Split:
    """Images uint8 `[n, c, h, w]` and what the task wants of each; both may be read-only memory maps.

    Training images may be larger than a model's input: then training cuts a part of that size out of each, at random.
    """

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[Any]
    """Class indices int64 `[n]`, masks uint8 or segments int32 `[n, h, w]`, or numbers float32 `[n, k]`, as the task
    says."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset on this machine, ready for training."""

    name: str
    digest: str
    task: Task
    preprocessing: Preprocessing
    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig(Config):
    """Base of every dataset's settings. Two equal configs give the same bytes, on any machine."""

    RECIPE: ClassVar[int] = 1
    """Raised by a dataset whenever the same config begins to give other bytes."""
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Settings that the digest leaves out where they are as by default: datasets on disk are older than they are."""

    train: int = setting(at_least=1, help="training images")

    @property
    @abstractmethod
    def name(self) -> str:
        """The dataset's name in the table (`datasets.py`)."""

    @property
    @abstractmethod
    def task(self) -> Task:
        """What a model is asked about this dataset's images."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """How one of its images becomes a model's input."""

    @abstractmethod
    def load(
        self, root: Path, progress: Progress | None = None, spread: Spread = over_threads, *, reserve: int = 0
    ) -> Dataset:
        """The dataset, made under `root` first if it is not there yet; its arrays are memory-mapped.

        Args:
            root: the folder of all datasets.
            progress: told of the images done.
            spread: shares the making out.
            reserve: bytes of the disk that stay free.

        Raises:
            DataUnavailable: files that must be there are not and cannot be fetched, or `root` cannot hold them.
        """

    def to_dict(self) -> dict[str, Any]:
        """The config as plain data, its `name` first."""
        return {"name": self.name, **Config.to_dict(self)}

    @property
    def digest(self) -> str:
        """16 hex digits that name the content: equal configs have equal digests."""
        usual = {field.name: field.default for field in dataclasses.fields(self) if field.name in self.OPTIONAL}
        content = {key: value for key, value in self.to_dict().items() if key not in usual or value != usual[key]}
        text = json.dumps({"recipe": self.RECIPE, **content}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class DataUnavailable(Exception):  # noqa: N818 - it says what is the matter
    """The files of a dataset are neither here nor to be had; the message says which, and where to put them."""
