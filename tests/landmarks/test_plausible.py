"""The judgement on a mesh, with a detector that is a function of the picture: it knows which way up the face is."""

from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.crop import cut, rotation_2d
from atldiff.landmarks.plausible import CERTAIN, bounding_square, disagreement, judge, roll_deg
from atldiff.landmarks.shape import mean_shape

CENTRE, SCALE = np.array([200.0, 180.0]), 35.0
FIRST, SECOND = np.array([[33, 362, 1, 13, 234, 454], [133, 263, 1, 14, 234, 454]])


def mesh(roll: float) -> np.ndarray:
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = SCALE * mean_shape()[:, :2] @ rotation_2d(roll).T + CENTRE
    return points


def key_points(points: np.ndarray) -> np.ndarray:
    return (points[FIRST, :2] + points[SECOND, :2]) / 2


class FaceAt:
    """Sees the face of a mesh the better, the more upright it stands in the crop.

    The picture it is given is marked with its own coordinates, so that it knows where the crop is.
    """

    def __init__(self, truth: np.ndarray, best: float = 0.95, worst: float = 0.6) -> None:
        self.truth, self.best, self.worst, self.looks = truth, best, worst, 0

    def __call__(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
        self.looks += 1
        side = picture.shape[0]
        places = picture[[0, 0, -1], [0, -1, 0], :2].astype(np.float64)  # of three corners
        across, down = (places[1] - places[0]) / (side - 1), (places[2] - places[0]) / (side - 1)
        to_crop = np.linalg.inv(np.stack([across, down], axis=1))
        found = (key_points(self.truth) - places[0]) @ to_crop.T
        roll = np.degrees(np.arctan2(*(found[1] - found[0])[::-1]))
        score = self.worst + (self.best - self.worst) * (1 + np.cos(np.radians(roll))) / 2
        return [(float(score), found.astype(np.float32))]


@pytest.fixture
def picture() -> np.ndarray:
    """Its red and green are x and y, for pictures below 256 pixels."""
    image = np.zeros((360, 400, 3), np.float32)
    image[..., 0], image[..., 1] = np.meshgrid(np.arange(400), np.arange(360))
    return image


@pytest.mark.parametrize("roll", [0.0, 30.0, 100.0, 180.0, -135.0])
def test_a_mesh_on_its_face_is_certain_after_one_look(picture: np.ndarray, roll: float) -> None:
    look = FaceAt(mesh(roll))
    certainty, seen = judge(picture, mesh(roll), look)
    assert certainty > CERTAIN
    assert seen is None
    assert look.looks == 1


@pytest.mark.parametrize(("roll", "truth"), [(0, 180), (48, -120), (-45, 150), (10, 100), (0, -80)])
def test_a_mesh_the_wrong_way_up_is_told_how_the_face_lies(picture: np.ndarray, roll: float, truth: float) -> None:
    certainty, seen = judge(picture, mesh(roll), FaceAt(mesh(truth)))
    assert certainty == 0
    assert seen is not None
    assert (seen - truth + 180) % 360 - 180 == pytest.approx(0, abs=2)


def test_hesitation_alone_condemns_no_mesh(picture: np.ndarray) -> None:
    for best, worst in ((0.84, 0.6), (0.65, 0.3)):  # no other turn is better
        certainty, seen = judge(picture, mesh(5), FaceAt(mesh(5), best=best, worst=worst))
        assert seen is None
        assert certainty == pytest.approx(best, abs=0.01)
    assert judge(picture, mesh(5), lambda crop: []) == (0, None)


@pytest.mark.parametrize(("on_its_head", "believed"), [(0.82, False), (0.87, True)])
def test_a_masked_face_stays_upright(picture: np.ndarray, on_its_head: float, *, believed: bool) -> None:
    """It looks a little more like a face on its head, but the detector's key points lie on the mesh as it is."""
    upright, turned = FaceAt(mesh(0), best=0.75, worst=0.6), FaceAt(mesh(180), best=on_its_head, worst=0.6)
    looks = lambda crop: max(upright(crop), turned(crop), key=lambda found: found[0][0])  # noqa: E731
    certainty, seen = judge(picture, mesh(0), looks)
    assert (seen is not None) is believed
    assert certainty < CERTAIN


def test_a_neighbour_s_face_in_the_crop_says_nothing(picture: np.ndarray) -> None:
    neighbour = mesh(180)
    neighbour[:, 0] += 80
    own, other = FaceAt(mesh(0), best=0.9), FaceAt(neighbour, best=0.99, worst=0.97)
    certainty, seen = judge(picture, mesh(0), lambda crop: [*other(crop), *own(crop)])
    assert certainty > CERTAIN
    assert seen is None


def test_disagreement_is_in_eye_distances() -> None:
    points = mesh(25)
    assert disagreement(points, key_points(points)) == pytest.approx(0, abs=1e-6)
    eyes = np.linalg.norm(points[33, :2] - points[263, :2])
    assert disagreement(points, key_points(points) + [0.5 * eyes, 0]) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("roll", [0.0, 37.0, -120.0, 180.0])
def test_a_crop_stands_upright_and_leads_back(picture: np.ndarray, roll: float) -> None:
    points = mesh(roll)
    assert (roll_deg(points) - roll + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)
    centre, side = bounding_square(points, roll)
    upright_centre, upright_side = bounding_square(mesh(0), 0.0)
    assert side == pytest.approx(upright_side, rel=1e-3)
    assert centre - CENTRE == pytest.approx(rotation_2d(roll) @ (upright_centre - CENTRE), abs=0.01)
    crop = cut(picture, centre, 1.2 * side, 128, roll)
    corners = crop.to_picture(np.array([[0, 0], [127, 0], [127, 127]], np.float32))
    assert crop.pixels[[0, 0, 127], [0, 127, 127], :2] == pytest.approx(corners, abs=0.1)
    down = crop.to_picture(np.array([[64, 80]], np.float32)) - crop.to_picture(np.array([[64, 60]], np.float32))
    chin = points[152, :2] - points[10, :2]
    assert down[0] @ chin / np.linalg.norm(down) / np.linalg.norm(chin) > 0.99
