"""Our Pathfinder images against those of the original program, by what can be measured on the images alone.

1,000 of ours against the 500 reference images of each length. Means are compared in sigmas of their difference, whole
distributions by the two-sample Kolmogorov-Smirnov test. All figures are of fixed images on both sides, so nothing here
is left to chance; a limit says how unlikely the difference would be between two samples of one program: 4 sigmas, or
p > 0.001 (3.3 sigmas), over some 40 comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ks_2samp

from trainables.data.pathfinder import Pathfinder

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]
Reference = Callable[[str], Mapping[str, npt.NDArray[Any]]]
LENGTHS = (6, 9, 14)
SIGMAS = 4.0
LEAST_P = 0.001
OURS = 1000
DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))


@lru_cache(maxsize=3)
def ours(path_length: int) -> tuple[Images, npt.NDArray[np.int64]]:
    """Our drawn 300x300 images and their labels."""
    made = Pathfinder(path_length=path_length, image_size=300).make("train", 0, OURS)
    return made.images[:, 0], made.targets


def sigmas(a: Floats, b: Floats) -> float:
    """The difference of two means, in sigmas of that difference."""
    return float((a.mean() - b.mean()) / np.hypot(a.std() / np.sqrt(len(a)), b.std() / np.sqrt(len(b))))


def marker_distances(images: Images) -> Floats:
    """Distance of the two discs in every image (of which none overlaps), found by what an erosion leaves of them."""
    distances = []
    for image in images:
        left = cv2.erode((image > 200).astype(np.uint8), DISC)
        count, _, _, centres = cv2.connectedComponentsWithStats(left)
        distances.append(np.hypot(*(centres[1] - centres[2])) if count == 3 else np.nan)
    return np.array(distances)


def dashes(images: Images) -> Floats:
    """How many separate lit spots an image has (dashes that touch count as one), discs included."""
    return np.array([cv2.connectedComponents((image > 127).astype(np.uint8))[0] - 1 for image in images], float)


def turns(masks: Images) -> Floats:
    """Angles, in degrees, between the lines that join the centres of successive dashes of masks with one disc."""
    angles: list[float] = []
    for mask in masks:
        _, _, stats, centres = cv2.connectedComponentsWithStats((mask > 0).astype(np.uint8))
        left = [c for c, s in zip(centres[1:], stats[1:], strict=True) if s[cv2.CC_STAT_AREA] < 40]
        here = centres[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
        route = []
        while left:
            nearest = min(range(len(left)), key=lambda k: float(np.hypot(*(left[k] - here))))
            here = left.pop(nearest)
            route.append(here)
        steps = np.diff(route, axis=0)
        steps = steps[np.hypot(*steps.T) < 20]
        heading = np.arctan2(steps[:, 0], steps[:, 1])
        angles.extend(np.degrees(np.abs((np.diff(heading) + np.pi) % (2 * np.pi) - np.pi)))
    return np.array(angles)


@pytest.mark.parametrize("path_length", LENGTHS)
@pytest.mark.parametrize("level", [0, 127])
def test_as_many_pixels_are_lit(path_length: int, level: int, reference: Reference) -> None:
    """Pixels above black, and above half intensity: mean and distribution over images."""
    theirs = (reference(f"pathfinder_{path_length:02}")["images"] > level).mean(axis=(1, 2))
    our = (ours(path_length)[0] > level).mean(axis=(1, 2))
    assert abs(sigmas(our, theirs)) < SIGMAS
    assert ks_2samp(our, theirs).pvalue > LEAST_P


@pytest.mark.parametrize("path_length", LENGTHS)
@pytest.mark.parametrize("label", [0, 1])
def test_markers_are_as_far_apart(path_length: int, label: int, reference: Reference) -> None:
    """The distribution of the two discs' distance, class by class."""
    file = reference(f"pathfinder_{path_length:02}")
    images, labels = ours(path_length)
    theirs = marker_distances(file["images"][file["labels"] == label])
    our = marker_distances(images[labels == label])
    assert np.isfinite(theirs).mean() > 0.95
    assert np.isfinite(our).mean() > 0.95
    assert ks_2samp(our[np.isfinite(our)], theirs[np.isfinite(theirs)]).pvalue > LEAST_P


@pytest.mark.parametrize("path_length", LENGTHS)
def test_as_many_dashes_are_seen(path_length: int, reference: Reference) -> None:
    """Separate lit spots an image: mean and distribution, which fall when dashes touch or distractors are missing."""
    theirs = dashes(reference(f"pathfinder_{path_length:02}")["images"])
    our = dashes(ours(path_length)[0])
    assert abs(sigmas(our, theirs)) < SIGMAS
    assert ks_2samp(our, theirs).pvalue > LEAST_P


@pytest.mark.parametrize("path_length", LENGTHS)
def test_border_is_black_as_far_as_theirs(path_length: int, reference: Reference) -> None:
    """The outer 18 pixels are exactly 0, and the next two are not."""
    for images in (ours(path_length)[0], reference(f"pathfinder_{path_length:02}")["images"]):
        border = np.ones((300, 300), bool)
        border[18:-18, 18:-18] = False
        assert images[:, border].max() == 0
        border[20:-20, 20:-20] = False
        border[18:-18, 18:20] = border[18:20, 18:-18] = border[18:-18, -20:-18] = border[-20:-18, 18:-18] = True
        assert images[:, border].max() > 0


@pytest.mark.parametrize("path_length", LENGTHS)
def test_labels_are_a_fair_coin(path_length: int) -> None:
    """Within 4 sigmas (each 0.5 / sqrt(1000)) of one half."""
    assert abs(ours(path_length)[1].mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(OURS)


@pytest.mark.parametrize("path_length", LENGTHS)
def test_masks_are_as_large_and_turn_alike(path_length: int, reference: Reference) -> None:
    """Lit fraction of the masks, and the angles by which the marked path turns (20 reference masks)."""
    theirs = reference(f"pathfinder_{path_length:02}_segmentation")
    made = Pathfinder(path_length=path_length, image_size=300).make_masks("train", 0, 400)
    images, masks = made.images, made.targets
    assert abs(sigmas((masks > 0).mean(axis=(1, 2)), (theirs["masks"] > 0).mean(axis=(1, 2)))) < SIGMAS
    assert abs(sigmas((images[:, 0] > 127).mean(axis=(1, 2)), (theirs["images"] > 127).mean(axis=(1, 2)))) < SIGMAS
    assert ks_2samp(turns(255 * masks), turns(theirs["masks"])).pvalue > LEAST_P


def test_every_lone_dash_of_theirs_is_one_of_our_sprites(reference: Reference) -> None:
    """Grey level for grey level: only dashes that something else touches may differ (2 % of them)."""
    tables = Pathfinder(path_length=6).scene("train", 0).tables

    def core(picture: Images) -> bytes:
        rows, columns = np.nonzero(picture > 40)
        cut = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return bytes(cut.shape) + cut.tobytes()

    known = {core(picture) for picture in tables.pictures}
    found = total = 0
    for image in reference("pathfinder_06")["images"][:50]:
        _, _, stats, _ = cv2.connectedComponentsWithStats((image > 40).astype(np.uint8))
        for left, top, width, height, area in stats[1:]:
            if area < 40:
                total += 1
                found += core(image[top : top + height, left : left + width]) in known
    assert total > 1500
    assert found / total > 0.98
