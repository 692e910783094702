from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.landmarks.parted import part_lips
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER

EYE = 150.0
CENTRE = np.array([256.0, 220.0])


def face(roll_deg: float = 0.0, *, tall: float = 0.0, colour: tuple[int, int, int] = (235, 230, 220)) -> tuple:
    """A drawn face whose mesh is closed: picture and landmarks. tall: of what shows between the lips, in pixels."""
    points = mean_shape() * EYE
    points[:, :2] += CENTRE
    points[LIPS_OUTER[11:], 1] += 14  # a full lower lip
    points[LIPS_INNER[11:]] = points[LIPS_INNER[9:0:-1]]
    image = np.full((480, 512, 3), (200, 160, 140), np.uint8)
    cv2.fillPoly(image, [np.rint(points[LIPS_OUTER, :2]).astype(np.int32)], (150, 70, 75))
    if tall:
        low, high = points[LIPS_INNER[3], :2], points[LIPS_INNER[7], :2]
        top = round(float(points[LIPS_INNER[5], 1])) + 2
        cv2.rectangle(image, (round(low[0]), top), (round(high[0]), top + round(tall) - 1), colour, -1)
    turn = cv2.getRotationMatrix2D((256, 240), -roll_deg, 1)
    points[:, :2] = points[:, :2] @ turn[:, :2].T + turn[:, 2]
    return cv2.warpAffine(image, turn, (512, 480), borderMode=cv2.BORDER_REPLICATE), points.astype(np.float32)


def gap(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[LIPS_INNER[5]] - points[LIPS_INNER[15]]))


@pytest.mark.parametrize("roll_deg", [0.0, 25.0, -40.0])
def test_a_row_of_teeth_parts_the_lips(roll_deg: float) -> None:
    image, points = face(roll_deg, tall=12)
    parted = part_lips(image, points)
    assert gap(points) == pytest.approx(0, abs=1e-3)
    assert gap(parted) == pytest.approx(14, abs=3)  # from the line that the mesh has to the lower end of the row
    rest = np.setdiff1d(np.arange(478), LIPS_INNER)
    assert np.array_equal(parted[rest], points[rest])
    assert np.allclose(parted[LIPS_INNER[[0, 10]]], points[LIPS_INNER[[0, 10]]], atol=1e-3)  # the corners


def test_grey_pictures_as_well() -> None:
    image, points = face(tall=12)
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    assert gap(part_lips(grey, points)) > 8


@pytest.mark.parametrize(
    ("tall", "colour"),
    [(0, (0, 0, 0)), (12, (225, 120, 120)), (2, (240, 240, 240)), (12, (120, 118, 110))],
    ids=["closed", "red", "a glint", "dim"],
)
def test_what_is_no_tooth_changes_nothing(tall: float, colour: tuple[int, int, int]) -> None:
    image, points = face(tall=tall, colour=colour)
    assert part_lips(image, points) is points


def test_open_mouths_are_the_meshs() -> None:
    image, points = face(tall=12)
    points[LIPS_INNER[11:], 1] += 16
    assert part_lips(image, points) is points


def test_a_mesh_without_extent_is_left_alone() -> None:
    points = np.zeros((478, 3), np.float32)
    assert part_lips(np.zeros((16, 16, 3), np.uint8), points) is points
