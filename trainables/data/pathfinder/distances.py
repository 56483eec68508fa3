"""The marker-distance shortcut: how much it tells, and how it is taken away."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trainables.data.pathfinder.config import Pathfinder
from trainables.data.pathfinder.frame import Frame
from trainables.data.pathfinder.scene import KEEP_ALL, Matching, Scene, compose

Floats = npt.NDArray[np.float64]
PILOT_PAIRS = 20_000
BIN_PIXELS = 1.0


def marker_distance_baseline(config: Pathfinder, images: int = 2000) -> float:
    """Balanced accuracy of guessing the class from the distance of the two markers alone.

    An interval of distances is fitted to the first half of `images` test images and tried on the second. What a model
    scores says something about tracing only beyond this.

    Raises:
        ValueError: fewer than 8 images, or a half without both classes.
    """
    if images < 8:
        raise ValueError(f"need images >= 8, got {images}")
    scenes = [config.scene("test", image) for image in range(images)]
    distances = np.array([scene.marker_distance for scene in scenes])
    labels = np.array([scene.label for scene in scenes])
    half = images // 2
    low, high = best_interval(distances[:half], labels[:half])
    guesses = (low <= distances[half:]) & (distances[half:] <= high)
    truth = labels[half:] == 1
    if truth.all() or not truth.any():
        raise ValueError(f"need both classes in the second half of {images} images")
    return float((guesses[truth].mean() + (~guesses[~truth]).mean()) / 2)


def best_interval(distances: Floats, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The interval that holds the largest fraction of the distances labelled 1 less that of those labelled 0.

    Raises:
        ValueError: one of the labels is missing.
    """
    positives = int((labels == 1).sum())
    if positives in (0, len(labels)):
        raise ValueError("need distances of both labels")
    values, place = np.unique(distances, return_inverse=True)
    gains = np.bincount(place, np.where(labels == 1, 1 / positives, -1 / (len(labels) - positives)))
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    last = int(np.argmax(sums[1:] - np.minimum.accumulate(sums[:-1])))
    first = int(np.argmin(sums[: last + 1]))
    return float(values[first]), float(values[last])


@lru_cache(maxsize=16)
def matching(frame: Frame, path_length: int) -> Matching:
    """How often to keep a pair of paths, so that distances are distributed alike in both classes.

    Of the two densities p0 and p1 in a bin of distance, a pair of class y is kept with probability min(p0, p1) / py.
    The densities come from pilot pairs that are in no split, four distances a pair: two of each class.
    """
    scenes = [
        compose(
            frame,
            path_length=path_length,
            distractors=0,
            distractor_length=1,
            seed=0,
            split="pilot",
            image=pair,
            matching=KEEP_ALL,
        )
        for pair in range(PILOT_PAIRS)
    ]
    distances = _distances(scenes)
    bins = int(distances.max() / BIN_PIXELS) + 1
    counts = np.stack([np.bincount((row / BIN_PIXELS).astype(np.int64), minlength=bins) for row in distances])
    return Matching(width=BIN_PIXELS, keep=counts.min(axis=0) / np.maximum(counts, 1))


def _distances(scenes: list[Scene]) -> Floats:
    """Distances between ends of different paths (row 0) and of one path (row 1)."""
    ends = np.stack([scene.ends for scene in scenes])
    apart = ends[:, :, None, 0] - ends[:, None, :, 1]
    distances = np.hypot(apart[..., 0], apart[..., 1])  # [scene, path of the first end, path of the last end]
    return np.stack(
        [
            np.concatenate([distances[:, 0, 1], distances[:, 1, 0]]),
            np.concatenate([distances[:, 0, 0], distances[:, 1, 1]]),
        ]
    )
