"""A small street of coloured boxes, photographed by cameras whose poses are known: pose regression without a download.

Axes are a camera's that is not turned: x to the right, y downwards, z ahead; metres. The ground is at y = 1.5. Cameras
stand within `reach` of the origin and look down the street.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import cv2
import numpy as np
import numpy.typing as npt

from trainables.data.streams import Stream, uniform

GROUND = 1.5
NEAREST = 0.05  # what is not wholly this far ahead of a camera is not drawn
FIELD_OF_VIEW = math.radians(70)
SKY = (140, 180, 220)
BITS = 4  # of the sub-pixel places that OpenCV draws at

Array = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class Camera:
    """Where a camera is, and how it is turned: a point of the world p is at `rotation @ (p - position)` before it."""

    position: Array
    rotation: Array

    @property
    def pose(self) -> npt.NDArray[np.float32]:
        """Position, then the unit quaternion of the rotation, scalar first: cameras here turn less than 180 degrees."""
        r = self.rotation
        w = math.sqrt(1 + np.trace(r)) / 2
        vector = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / (4 * w)
        return np.array([*self.position, w, *vector], np.float32)


def street(boxes: int, draws: Stream) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Faces `[k, 4, 3]` (corners in order) and colours `[k, 3]`: a chequered ground and boxes on both of its sides."""
    faces: list[Array] = []
    colours: list[Array] = []
    for column in range(-8, 8):
        for row in range(1, 15):
            corners = [(column, GROUND, row), (column + 1, GROUND, row)]
            corners += [(x, GROUND, row + 1) for x, _, _ in reversed(corners)]
            faces.append(np.array(corners, float))
            colours.append(np.full(3, 105.0 + 30 * ((column + row) % 2)))
    for box in range(boxes):
        side = 1 if box % 2 else -1
        width, height, depth = (_between(draws, 0.4, 1.4), _between(draws, 0.5, 3.5), _between(draws, 0.4, 1.2))
        centre = np.array([side * _between(draws, 0.9, 4.5), GROUND - height / 2, _between(draws, 3.5, 11.0)])
        colour = np.array([_between(draws, 40, 235) for _ in range(3)])
        for axis in range(3):
            for end in (-1, 1):
                if (axis, end) == (1, 1):
                    continue  # what stands on the ground
                faces.append(centre + _face(axis, end) * (width, height, depth))
                colours.append(colour * (1.0, 0.8, 0.65)[axis])
    return np.stack(faces), np.stack(colours).astype(np.uint8)


def camera(draws: Stream, reach: float) -> Camera:
    """One at a random place that looks, a little tilted, at a random point in the middle of the street."""
    position = np.array([_between(draws, -reach, reach) * share for share in (1.0, 0.5, 1.0)])
    at = np.array([_between(draws, -1.5, 1.5), _between(draws, -0.5, 0.7), 6.0])
    roll = _between(draws, -0.15, 0.15)
    ahead = (at - position) / np.linalg.norm(at - position)
    right = np.cross((math.sin(roll), math.cos(roll), 0.0), ahead)
    right /= np.linalg.norm(right)
    return Camera(position, np.stack([right, np.cross(ahead, right), ahead]))


def photograph(faces: Array, colours: npt.NDArray[np.uint8], camera: Camera, size: int) -> npt.NDArray[np.uint8]:
    """What the camera sees: RGB `[size, size, 3]`. Nearer faces are drawn over farther ones."""
    image = np.full((size, size, 3), SKY, np.uint8)
    seen = (faces - camera.position) @ camera.rotation.T
    focal = size / 2 / math.tan(FIELD_OF_VIEW / 2)
    distances = np.linalg.norm(seen.mean(axis=1), axis=1)
    distances += 1e3 * (faces[:, :, 1] == GROUND).all(axis=1)  # the ground is below everything
    for face in np.argsort(-distances, kind="stable"):
        corners = seen[face]
        if corners[:, 2].min() > NEAREST:
            places = corners[:, :2] / corners[:, 2:] * focal + (size - 1) / 2
            points = np.rint(places * 2**BITS).astype(np.int32)
            cv2.fillConvexPoly(image, points, colours[face].tolist(), cv2.LINE_AA, BITS)
    return image


def _between(draws: Stream, low: float, high: float) -> float:
    return low + (high - low) * uniform(draws)


def _face(axis: int, end: int) -> Array:
    """Corners, in order, of one side of a cube with edges of length 1 around the origin."""
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) / 2
    return np.insert(corners, axis, end / 2, axis=1)
