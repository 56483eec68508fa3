"""The synthetic scene: its cameras and what they see."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from trainables.data.streams import stream
from trainables.data.synthetic_scene.scene import FIELD_OF_VIEW, Camera, camera, photograph, street


@pytest.mark.parametrize("image", range(20))
def test_a_pose_is_its_cameras(image: int) -> None:
    """The quaternion is that of the rotation, which is one; the camera stands within reach."""
    one = camera(stream(3, "train", image), reach=0.8)
    np.testing.assert_allclose(one.rotation @ one.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(one.rotation) == pytest.approx(1)
    quaternion = np.roll(one.pose[3:].astype(float), -1)
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), one.rotation, atol=1e-6)
    assert np.abs(one.pose[:3]).max() <= 0.8
    assert one.pose[3] > 0


def test_faces_are_drawn_where_opencv_projects_them() -> None:
    """The middle of a lone face has its colour at the place that OpenCV's own camera model gives."""
    side, focal = 200, 100 / np.tan(FIELD_OF_VIEW / 2)
    for image in range(10):
        one = camera(stream(0, "test", image), reach=1.0)
        face = np.array([[[0.0, -0.2, 6.0], [0.6, -0.2, 6.0], [0.6, 0.4, 6.0], [0.0, 0.4, 6.0]]])
        picture = photograph(face, np.array([[255, 0, 0]], np.uint8), one, side)
        matrix = np.array([[focal, 0, (side - 1) / 2], [0, focal, (side - 1) / 2], [0, 0, 1]])
        turn, shift = cv2.Rodrigues(one.rotation)[0], -one.rotation @ one.position
        (place,) = cv2.projectPoints(face.mean(axis=1), turn, shift, matrix, None)[0][0]
        red = np.argwhere(picture[:, :, 0] == 255)
        np.testing.assert_allclose(red.mean(axis=0)[::-1], place, atol=0.8)


def test_near_faces_hide_far_ones() -> None:
    """Whatever the order they are given in."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces, colours = (
        np.stack([square + np.array([0, 0, z]) for z in (3, 5)]),
        np.array([[9, 9, 9], [200, 0, 0]], np.uint8),
    )
    at_origin = Camera(np.zeros(3), np.eye(3))
    for order in ([0, 1], [1, 0]):
        assert photograph(faces[order], colours[order], at_origin, 50)[25, 25].tolist() == [9, 9, 9]


def test_what_is_behind_a_camera_is_not_seen() -> None:
    """A street at the camera's back leaves the sky."""
    faces, colours = street(5, stream(0, "pilot", 0))
    turned = Camera(np.zeros(3), np.diag([-1.0, 1.0, -1.0]))
    assert np.unique(photograph(faces, colours, turned, 40).reshape(-1, 3), axis=0).shape == (1, 3)
