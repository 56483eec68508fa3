"""Cluttered ABC's images follow their rules, and look like those of the original program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ks_2samp, mannwhitneyu

from trainables.config import ConfigError
from trainables.data.cabc import ClutteredABC
from trainables.data.cabc.difficulty import DIFFICULTIES
from trainables.data.cabc.letters import CAPITALS, strokes
from trainables.data.cabc.scene import Scene, draw

Floats = npt.NDArray[np.float64]
Reference = Callable[[str], Mapping[str, npt.NDArray[Any]]]
OURS = 300
SIGMAS = 4.0
LEAST_P = 0.001


@lru_cache(maxsize=6)
def ours(difficulty: str, placement: str = "original") -> list[Scene]:
    """Our first images of a difficulty."""
    config = ClutteredABC.from_dict({"difficulty": difficulty, "placement": placement})
    return [config.scene("train", image) for image in range(OURS)]


def sigmas(a: Floats, b: Floats) -> float:
    """The difference of two means, in sigmas of that difference."""
    return float((a.mean() - b.mean()) / np.hypot(a.std() / np.sqrt(len(a)), b.std() / np.sqrt(len(b))))


def assert_alike(a: Floats, b: Floats) -> None:
    """Means within 4 sigmas, and distributions that the Kolmogorov-Smirnov test does not tell apart (3.3 sigmas)."""
    assert abs(sigmas(a, b)) < SIGMAS, (a.mean(), b.mean())
    assert ks_2samp(a, b).pvalue > LEAST_P, (a.mean(), b.mean())


def centres(dots: npt.NDArray[np.uint8]) -> Floats:
    """Centre of mass of every letter's dots, from the centre of the image, `[n, 2]`."""
    return np.array([np.argwhere(letter).mean(axis=0) - 175 for letter in dots])


def own_zone(scene: Scene, letter: int) -> npt.NDArray[np.bool_]:
    """A letter's dots beyond 14 city-block steps from the other's."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    near = cv2.dilate(scene.dots[1 - letter], cross, iterations=14)
    return (scene.dots[letter] > 0) & (near == 0)


def test_image_depends_only_on_settings_seed_split_and_number() -> None:
    """Made alone or in a range, image 3 has the same bytes; other splits and seeds have others."""
    config = ClutteredABC()
    whole = config.make("train", 0, 5)
    assert np.array_equal(config.make("train", 3, 4).images, whole.images[3:4])
    assert not np.array_equal(config.make("test", 3, 4).images, whole.images[3:4])
    assert not np.array_equal(ClutteredABC(seed=1).make("train", 3, 4).images, whole.images[3:4])


@pytest.mark.parametrize("difficulty", sorted(DIFFICULTIES))
def test_rings_are_on_the_letters_that_the_label_says(difficulty: str) -> None:
    """The first in the first letter's own zone, the second in its or the other's; at least 23 pixels apart."""
    for scene in ours(difficulty)[:100]:
        zones = (own_zone(scene, 0), own_zone(scene, 1))
        first, second = scene.markers
        assert zones[0][tuple(first)]
        assert zones[0 if scene.label else 1][tuple(second)]
        assert np.hypot(*(first - second)) >= 22


@pytest.mark.parametrize("difficulty", sorted(DIFFICULTIES))
def test_distance_of_the_rings_tells_nothing(difficulty: str) -> None:
    """A rank test of the distances by label (p > 0.001 is 3.3 sigmas), and labels are a fair coin."""
    scenes = ours(difficulty)
    labels = np.array([scene.label for scene in scenes])
    distances = np.array([np.hypot(*(scene.markers[0] - scene.markers[1])) for scene in scenes])
    assert mannwhitneyu(distances[labels == 0], distances[labels == 1]).pvalue > LEAST_P
    assert abs(labels.mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(OURS)


def test_drawn_image_is_dots_with_two_rings() -> None:
    """White rings, black inside, and the dots of both letters elsewhere."""
    for scene in ours("hard")[:20]:
        image, dots = draw(scene), scene.dots.max(axis=0)
        assert image.shape == (350, 350)
        y, x = np.ogrid[:350, :350]
        away = np.ones((350, 350), bool)
        for row, column in scene.markers:
            distance = np.hypot(y - row, x - column)
            assert image[(distance > 9) & (distance < 10)].min() > 200
            away &= distance > 14
        for row, column in scene.markers:
            other = scene.markers[0] if (row, column) == tuple(scene.markers[1]) else scene.markers[1]
            inside = (np.hypot(y - row, x - column) < 6) & (np.hypot(y - other[0], x - other[1]) > 15)
            assert image[inside].max(initial=0) < 10
        assert np.array_equal(image[away], dots[away])


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_serving_the_drawn_image_gives_the_pixels_of_the_split(resize: str) -> None:
    """A client that sends the drawn 350x350 image has it resized to the bytes that training saw."""
    config = ClutteredABC.from_dict({"resize": resize})
    made = config.make("test", 2, 3)
    assert made.images.shape == (1, 1, 150, 150)
    assert np.array_equal(config.preprocessing.fit(draw(config.scene("test", 2))), made.images[0])


def test_letters_are_all_used_alike() -> None:
    """Over 900 pairs every capital comes up; letters that find a place more easily come up more often."""
    seen = [capital for difficulty in DIFFICULTIES for scene in ours(difficulty) for capital in scene.capitals]
    counts = [seen.count(capital) for capital in CAPITALS]
    assert min(counts) > len(seen) / 26 / 3
    assert max(counts) < len(seen) / 26 * 2


def test_strokes_fill_their_boxes_and_their_tangents_are_unit_vectors() -> None:
    """Both styles, all letters: centred, at most 1.1 capitals wide, evenly sampled."""
    made = strokes(0.01)
    assert made.starts.shape == (53,)
    assert np.allclose(np.hypot(*made.tangents.T), 1)
    for letter in range(52):
        points = made.points[made.starts[letter] : made.starts[letter + 1]]
        assert np.allclose(points.max(axis=0) - points.min(axis=0), made.boxes[letter], atol=0.011)
        assert np.abs(points).max() <= 0.56


def test_intended_placement_uses_every_direction() -> None:
    """By default the first letter is always below and to the right; as intended its angle is uniform."""
    original, intended = (
        centres(np.stack([scene.dots[0] for scene in ours("easy", placement)]))
        for placement in ("original", "intended")
    )
    assert original.mean(axis=0).min() > 20
    angles = np.arctan2(intended[:, 0], intended[:, 1])
    # The mean of n uniform unit vectors is 1 / sqrt(n) long (its root mean square): 4 sigmas.
    assert abs(np.exp(1j * angles).mean()) < SIGMAS / np.sqrt(OURS)


@pytest.mark.parametrize(
    ("settings", "field", "rule"),
    [
        ({"difficulty": "heavy"}, "difficulty", "need one of 'easy', 'intermediate', 'hard'"),
        ({"placement": "random"}, "placement", "need one of"),
        ({"image_size": 4}, "image_size", ">= 8"),
        ({"seed": -1}, "seed", ">= 0"),
    ],
)
def test_impossible_settings_name_their_rule(settings: dict[str, object], field: str, rule: str) -> None:
    """Before anything is drawn."""
    with pytest.raises(ConfigError, match=rule) as caught:
        ClutteredABC.from_dict(settings)
    assert caught.value.faults[0].path[0] == field


@pytest.mark.parametrize("difficulty", sorted(DIFFICULTIES))
class TestFidelity:
    """300 of ours against the 50 or 80 reference images of each difficulty.

    Our letters are not the original's fonts, so this says that they are alike as far as such samples can tell.
    """

    def test_dots_cover_as_much(self, difficulty: str, reference: Reference) -> None:
        """The image above half intensity, each letter's dots, and the dots of both."""
        theirs, scenes = reference(f"cabc_{difficulty}"), ours(difficulty)
        images = np.stack([draw(scene) for scene in scenes])
        dots = np.stack([scene.dots for scene in scenes])
        assert_alike((images > 127).mean(axis=(1, 2)), (theirs["images"] > 127).mean(axis=(1, 2)))
        for letter in range(2):
            assert_alike((dots[:, letter] > 0).mean(axis=(1, 2)), (theirs["letters"][:, letter] > 0).mean(axis=(1, 2)))
        assert_alike((dots.min(axis=1) > 0).mean(axis=(1, 2)), (theirs["letters"].min(axis=1) > 0).mean(axis=(1, 2)))

    def test_letters_are_as_large_and_lie_alike(self, difficulty: str, reference: Reference) -> None:
        """Height and width of the dots, and their distance and direction from the centre."""
        theirs, dots = reference(f"cabc_{difficulty}")["letters"], np.stack([scene.dots for scene in ours(difficulty)])
        for letter in range(2):
            for axis in range(2):
                our, their = (
                    np.array([np.ptp(np.argwhere(one)[:, axis]) for one in side[:, letter]], float)
                    for side in (dots, theirs)
                )
                assert_alike(our, their)
            our_centres, their_centres = centres(dots[:, letter]), centres(theirs[:, letter])
            assert_alike(np.hypot(*our_centres.T), np.hypot(*their_centres.T))
            for axis in range(2):
                assert_alike(our_centres[:, axis], their_centres[:, axis])

    def test_rings_lie_alike(self, difficulty: str, reference: Reference) -> None:
        """Their distance, and their places from the centre."""

        def rings(images: npt.NDArray[np.uint8]) -> Floats:
            y, x = np.ogrid[-14:15, -14:15]
            ring = ((np.hypot(y, x) <= 11) & (np.hypot(y, x) > 8)).astype(np.float32) - 0.42
            ring[np.hypot(y, x) > 11] = 0
            found = []
            for image in images:
                padded = np.pad(image, 14).astype(np.float32)
                score = cv2.matchTemplate(padded, ring, cv2.TM_CCORR)
                places = []
                for _ in range(2):
                    row, column = np.unravel_index(int(score.argmax()), score.shape)
                    places.append((row, column))
                    score[max(0, row - 9) : row + 10, max(0, column - 9) : column + 10] = -np.inf
                found.append(places)
            return np.array(found, float)

        scenes = ours(difficulty)
        found = rings(np.stack([draw(scene) for scene in scenes]))
        truth = np.array([sorted(map(tuple, scene.markers)) for scene in scenes], float)
        exact = (np.array([sorted(map(tuple, places)) for places in found]) == truth).all(axis=(1, 2))
        assert exact.mean() > 0.97, "the search for rings does not find ours"
        their = rings(reference(f"cabc_{difficulty}")["images"])
        assert_alike(np.hypot(*(found[:, 0] - found[:, 1]).T), np.hypot(*(their[:, 0] - their[:, 1]).T))
        assert_alike(np.hypot(*(found.mean(axis=1) - 175).T), np.hypot(*(their.mean(axis=1) - 175).T))
