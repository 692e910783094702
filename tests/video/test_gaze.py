"""Irises that move between lids that stay."""

from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import IRIS_LEFT, IRIS_RIGHT, MESH_POINTS
from atldiff.methods.window_frames import EYES, IRISES
from atldiff.video.gaze import MOST, moved_irises

POINTS = (mean_shape()[:, :2] * 160 + [160, 100]).astype(np.float32)
WIDTH = float(np.linalg.norm(POINTS[33] - POINTS[133]))


def drawn() -> np.ndarray:
    """Return a picture of two white eyes with black irises in grey skin."""
    y, x = np.mgrid[:200, :320]
    picture = np.full((200, 320), 120, np.uint8)
    for eye, iris in zip(EYES, IRISES, strict=True):
        upper, lower = (POINTS[line] for line in (eye.upper, eye.lower))
        first, last = POINTS[eye.corners]
        above = np.interp(x[0], [first[0], *upper[:, 0], last[0]], [first[1], *upper[:, 1], last[1]])
        below = np.interp(x[0], [first[0], *lower[:, 0], last[0]], [first[1], *lower[:, 1], last[1]])
        inside = (y > above) & (y < below) & (x > first[0]) & (x < last[0])
        picture[inside] = 240
        picture[inside & (np.hypot(x - POINTS[iris, 0], y - POINTS[iris, 1]) < 0.2 * WIDTH)] = 20
    return np.repeat(picture[..., None], 3, axis=2)


def looking(right_px: float, down_px: float = 0.0) -> np.ndarray:
    target = POINTS.copy()
    target[MESH_POINTS:] += [right_px, down_px]
    return target


def middle_of_dark(picture: np.ndarray, iris: int) -> float:
    x0, y0 = (POINTS[iris] - WIDTH / 2).astype(int)
    part = 255.0 - picture[y0 : y0 + int(WIDTH), x0 : x0 + int(WIDTH), 0]
    weight = np.clip(part - 150, 0, None).sum(axis=0)
    return float((weight * np.arange(len(weight))).sum() / weight.sum())


def painted(target: np.ndarray) -> np.ndarray:
    picture = drawn()
    canvas = picture.copy()
    y, x = np.mgrid[:200, :320].astype(np.float32)
    for motion in moved_irises(POINTS, target, EYES, IRISES):
        motion.paint(canvas, picture, (x, y), (0, 0))
    return canvas


@pytest.mark.parametrize("right_px", [-4.0, -1.5, 2.0, 4.0])
def test_the_iris_goes_where_it_looks_and_the_lids_stay(right_px: float) -> None:
    picture, canvas = drawn(), painted(looking(right_px))
    for iris in IRISES:
        moved = middle_of_dark(canvas, iris) - middle_of_dark(picture, iris)
        assert moved == pytest.approx(right_px, abs=0.8)  # the lids hide a part
    skin = picture[..., 0] == 120
    assert np.array_equal(canvas[skin], picture[skin])
    assert ((canvas[..., 0] < 60).sum()) == pytest.approx((picture[..., 0] < 60).sum(), rel=0.15)


def test_eyes_that_look_ahead_are_not_painted() -> None:
    assert not moved_irises(POINTS, POINTS, EYES, IRISES)
    down = moved_irises(POINTS, looking(0.0, 3.0), EYES, IRISES)
    assert all(abs(motion.along) < 0.2 for motion in down)  # eyes slant a little
    turned = (POINTS - 100) @ np.array([[0.9, 0.3], [-0.3, 0.9]], np.float32) + 110  # lids and irises alike
    assert not moved_irises(POINTS, turned, EYES, IRISES)


def test_no_iris_leaves_its_eye() -> None:
    for motion in moved_irises(POINTS, looking(60.0), EYES, IRISES):
        assert motion.along == pytest.approx(MOST * WIDTH, rel=0.05)
    assert (np.array(IRISES) == [IRIS_RIGHT[0], IRIS_LEFT[0]]).all()


def test_an_eye_at_the_border_is_painted_as_far_as_it_is_seen() -> None:
    target = looking(3.0)
    picture, canvas = drawn(), np.zeros((4, 5, 3), np.uint8)
    y, x = np.mgrid[:4, :5].astype(np.float32)
    for motion in moved_irises(POINTS, target, EYES, IRISES):
        motion.paint(canvas, picture, (x, y), (0, 0))
    assert not canvas.any()
