from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks import topology
from atldiff.landmarks.control import FACE_CONTROL, MOUTH_CONTROL, ControlPoints
from atldiff.landmarks.geometry import (
    euler_degrees,
    fit_rigid,
    from_canonical,
    mirror_symmetric,
    normalise_shape,
    rotation_from_euler,
    to_canonical,
)
from atldiff.landmarks.shape import mean_shape
from atldiff.video.window import RIGID_POINTS

ANGLES = [
    (0.0, 0.0, 0.0),
    (30.0, 0.0, 0.0),
    (0.0, -25.0, 0.0),
    (0.0, 0.0, 40.0),
    (-50.0, 20.0, -70.0),
    (80.0, 60.0, 170.0),
]


def random_points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


@pytest.mark.parametrize("angles", ANGLES)
def test_fit_recovers_a_similarity(angles: tuple[float, float, float]) -> None:
    source = random_points(16)
    rotation, scale, translation = rotation_from_euler(*angles), 57.3, np.array([300.0, -20.0, 7.0])
    fitted = fit_rigid(source, scale * source @ rotation.T + translation)
    for got, wanted in zip(fitted, (rotation, scale, translation), strict=True):
        assert np.abs(got - wanted).max() < 1e-9


def test_fit_takes_leading_axes() -> None:
    source = random_points(12)
    rotations = rotation_from_euler(*np.array(ANGLES).T).reshape(2, 3, 3, 3)
    scales = np.arange(1.0, 7.0).reshape(2, 3)
    shifts = np.random.default_rng(1).normal(size=(2, 3, 3))
    target = scales[..., None, None] * np.einsum("...ij,kj->...ki", rotations, source) + shifts[..., None, :]
    rotation, scale, translation = fit_rigid(source, target)
    assert rotation.shape == (2, 3, 3, 3)
    assert np.allclose(rotation, rotations)
    assert np.allclose(scale, scales)
    assert np.allclose(translation, shifts)


def test_fit_never_reflects() -> None:
    for seed in range(20):
        source = random_points(10, seed)
        for target in (source * np.array([-1.0, 1.0, 1.0]), random_points(10, seed + 100)):
            rotation, scale, _ = fit_rigid(source, target)
            assert np.linalg.det(rotation) == pytest.approx(1.0)
            assert np.allclose(rotation @ rotation.T, np.eye(3))
            assert scale > 0


def test_fit_is_the_least_squares_one() -> None:
    random = np.random.default_rng(5)
    source = random_points(16)
    target = 3 * source @ rotation_from_euler(20, 10, -5).T + 0.3 * random.normal(size=source.shape)
    rotation, scale, translation = fit_rigid(source, target)

    def error(turn: np.ndarray, size: float, shift: np.ndarray) -> float:
        return float(((size * source @ turn.T + shift - target) ** 2).sum())

    best = error(rotation, float(scale), translation)
    for _ in range(50):
        nudge = rotation_from_euler(*random.normal(0, 1.0, 3)) @ rotation
        assert error(nudge, float(scale), translation) > best
        assert error(rotation, float(scale) * (1 + random.normal(0, 0.02)), translation) > best
        assert error(rotation, float(scale), translation + random.normal(0, 0.05, 3)) > best


def test_canonical_and_back_is_the_identity() -> None:
    random = np.random.default_rng(2)
    shapes = mean_shape() + random.normal(0, 0.02, (5, 478, 3))
    rotation = rotation_from_euler(*random.uniform(-40, 40, (3, 5)))
    scale, translation = random.uniform(40, 300, 5), random.uniform(-50, 800, (5, 3))
    points = from_canonical(shapes, rotation, scale, translation)
    parts = to_canonical(points, mean_shape())
    assert np.abs(from_canonical(*parts) - points).max() < 1e-9
    single = to_canonical(points[2], mean_shape())
    for batched, alone in zip(parts, single, strict=True):
        assert np.allclose(batched[2], alone)


def test_canonical_removes_the_pose() -> None:
    rotation = rotation_from_euler(25.0, -10.0, 5.0)
    points = from_canonical(mean_shape(), rotation, np.array(120.0), np.array([400.0, 300.0, 0.0]))
    shape, turned, scale, translation = to_canonical(points, mean_shape())
    assert np.abs(shape - mean_shape()).max() < 1e-9
    assert np.allclose(euler_degrees(turned), [25.0, -10.0, 5.0])
    assert scale == pytest.approx(120.0)
    assert np.allclose(translation, [400.0, 300.0, 0.0])


def test_canonical_shape_does_not_move_with_the_jaw() -> None:
    still = mean_shape()
    speaking = still.copy()
    speaking[topology.LIPS, 1] += 0.1
    assert np.allclose(to_canonical(speaking, still)[0], speaking)


@pytest.mark.parametrize("angles", ANGLES)
def test_euler_round_trip(angles: tuple[float, float, float]) -> None:
    rotation = rotation_from_euler(*angles)
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert np.allclose(euler_degrees(rotation), angles)


def test_roll_is_a_turn_in_the_picture_and_arrays_are_taken() -> None:
    assert np.allclose(rotation_from_euler(0, 0, 90) @ [1, 0, 0], [0, 1, 0])  # x right goes to y down: clockwise
    angles = np.random.default_rng(0).uniform(-60, 60, (3, 4, 5))
    assert np.allclose(np.moveaxis(euler_degrees(rotation_from_euler(*angles)), -1, 0), angles)


def test_normalise_and_mirror() -> None:
    shape = normalise_shape(5 * mean_shape() + 3)
    assert np.allclose(shape, mean_shape())
    swapped = np.array([1, 0, 2])
    points = np.array([[1.0, 2.0, 3.0], [-3.0, 4.0, 5.0], [0.5, 1.0, 0.0]])
    mirrored = mirror_symmetric(points, swapped)
    assert np.allclose(mirrored, [[2.0, 3.0, 4.0], [-2.0, 3.0, 4.0], [0.0, 1.0, 0.0]])


class TestMeanShape:
    def test_unit_and_centre(self) -> None:
        shape = mean_shape()
        assert shape.shape == (478, 3)
        assert shape.dtype == np.float64
        right, left = shape[topology.OUTER_EYE_CORNERS]
        assert np.linalg.norm(left - right) == pytest.approx(1.0, abs=1e-6)
        assert np.abs(right + left).max() < 1e-6

    def test_symmetric(self) -> None:
        shape = mean_shape()
        reflected = shape * np.array([-1.0, 1.0, 1.0])
        nearest = np.linalg.norm(shape[:, None] - reflected[None], axis=-1).min(axis=1)
        assert nearest.max() < 0.01
        assert np.abs(shape[[1, 4, 10, 152, 13, 14], 0]).max() < 1e-3  # the midline

    def test_upright_and_facing_the_camera(self) -> None:
        shape = mean_shape()
        assert shape[10, 1] < shape[topology.OUTER_EYE_CORNERS, 1].min() < shape[1, 1] < shape[13, 1] < shape[152, 1]
        assert shape[33, 0] < 0 < shape[263, 0]  # the person's right is the picture's left
        assert shape[1, 2] < shape[[234, 454], 2].min()  # the nose is nearer than the ears
        assert shape[10, 2] == pytest.approx(shape[152, 2], abs=1e-5)

    def test_lips_neither_cross_nor_gape(self) -> None:
        upper, lower = mean_shape()[topology.LIP_GAP_PAIRS, 1].T
        assert (lower > upper).all()
        assert float(topology.lip_opening(mean_shape())) < 0.1  # a mean over speech, not a closed mouth


LISTS = [
    "OVAL", "JAW", "LIPS_OUTER", "LIPS_INNER", "LIPS_MIDDLE", "LIPS", "EYE_RIGHT", "EYE_LEFT", "IRIS_RIGHT",
    "IRIS_LEFT", "BROW_RIGHT", "BROW_LEFT", "RIGID_WINDOW", "RIGID", "SIXTY_EIGHT",
]  # fmt: skip


class TestTopology:
    @pytest.mark.parametrize("name", LISTS)
    def test_lists_hold_each_point_once(self, name: str) -> None:
        indices = getattr(topology, name)
        assert len(np.unique(indices)) == len(indices)
        assert indices.min() >= 0
        assert indices.max() < topology.POINTS

    def test_counts(self) -> None:
        assert (len(topology.OVAL), len(topology.LIPS_OUTER), len(topology.LIPS_INNER)) == (36, 20, 20)
        assert len(topology.LIPS) == 80
        assert set(topology.JAW) <= set(topology.OVAL)

    def test_rigid_points_are_the_window_s(self) -> None:
        assert tuple(topology.RIGID_WINDOW) == RIGID_POINTS
        assert set(topology.RIGID_WINDOW) <= set(topology.RIGID)
        assert not set(topology.RIGID) & set(topology.LIPS)

    @pytest.mark.parametrize("name", ["OVAL", "LIPS_OUTER", "LIPS_INNER", "EYE_RIGHT", "EYE_LEFT"])
    def test_contours_go_around_once(self, name: str) -> None:
        x, y = mean_shape()[getattr(topology, name), :2].T
        angles = np.arctan2(y - y.mean(), x - x.mean())
        turns = np.diff(np.unwrap(np.append(angles, angles[0])))
        assert abs(turns.sum()) == pytest.approx(2 * np.pi)
        assert (np.sign(turns) == np.sign(turns.sum())).all()

    def test_oval_is_clockwise_from_the_forehead(self) -> None:
        x, y = mean_shape()[topology.OVAL, :2].T
        assert topology.OVAL[0] == 10
        assert y.argmin() == 0
        assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0  # clockwise, as y points down

    @pytest.mark.parametrize("name", ["LIP_GAP_PAIRS", "LID_PAIRS_RIGHT", "LID_PAIRS_LEFT"])
    def test_pairs_lie_across_the_gap(self, name: str) -> None:
        pairs = mean_shape()[getattr(topology, name)]  # (P, 2, 3)
        gap = pairs[:, 1] - pairs[:, 0]
        assert (gap[:, 1] > 0).all()  # the second is below the first
        assert np.abs(gap[:, 0]).max() < 0.03  # and under it

    def test_lip_pairs_are_of_the_inner_lips(self) -> None:
        upper, lower = topology.LIP_GAP_PAIRS.T
        assert set(upper) <= set(topology.LIPS_INNER[1:10])
        assert set(lower) <= set(topology.LIPS_INNER[11:])

    @pytest.mark.parametrize(
        ("right", "left"),
        [("EYE_RIGHT", "EYE_LEFT"), ("IRIS_RIGHT", "IRIS_LEFT"), ("BROW_RIGHT", "BROW_LEFT"),
         ("LID_PAIRS_RIGHT", "LID_PAIRS_LEFT")],
    )  # fmt: skip
    def test_sides_mirror_each_other(self, right: str, left: str) -> None:
        first = mean_shape()[getattr(topology, right).ravel()]
        second = mean_shape()[getattr(topology, left).ravel()] * np.array([-1.0, 1.0, 1.0])
        assert first[:, 0].max() < 0
        distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
        assert distance.min(axis=1).max() < 0.03

    def test_sixty_eight(self) -> None:
        points = np.arange(2 * 478 * 3).reshape(2, 478, 3)
        mapped = topology.to_sixty_eight(points)
        assert mapped.shape == (2, 68, 3)
        assert np.array_equal(mapped, points[:, topology.SIXTY_EIGHT])
        assert topology.to_sixty_eight(points[:, :468]).shape == (2, 68, 3)
        shape = topology.to_sixty_eight(mean_shape())
        assert shape[8, 1] == shape[:, 1].max()  # the chin
        assert (np.diff(shape[:17, 0]) > 0).sum() >= 14  # the jaw from the right ear to the left one
        assert shape[36, 0] < shape[39, 0] < shape[42, 0] < shape[45, 0]
        assert set(topology.SIXTY_EIGHT[topology.SIXTY_EIGHT_MOUTH]) <= set(topology.LIPS)

    @pytest.mark.parametrize("shape", [(68, 3), (478,), (2, 3, 478)])
    def test_sixty_eight_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"points: got shape .*, expected"):
            topology.to_sixty_eight(np.zeros(shape))

    def test_lip_opening_is_the_mean_gap(self) -> None:
        points = np.zeros((4, 478, 2))
        points[:, topology.LIP_GAP_PAIRS[:, 1], 1] = [[3.0, 6.0, 9.0]]
        points[3] *= 2
        assert np.allclose(topology.lip_opening(points), [6, 6, 6, 12])


class TestControlPoints:
    @pytest.mark.parametrize("control", [FACE_CONTROL, MOUTH_CONTROL])
    def test_each_point_once_and_none_on_another(self, control: ControlPoints) -> None:
        keys = set(zip(control.first.tolist(), control.second.tolist(), control.part.tolist(), strict=True))
        assert len(keys) == len(control.first)
        placed = control.of(mean_shape()[:, :2])
        distance = np.linalg.norm(placed[:, None] - placed[None], axis=-1) + np.eye(len(placed))
        assert distance.min() > 1e-4
        assert control.part.min() >= 0
        assert control.part.max() < 1
        assert control.indices().max() < topology.MESH_POINTS  # irises do not pull the picture

    @pytest.mark.parametrize("control", [FACE_CONTROL, MOUTH_CONTROL])
    def test_every_lip_and_jaw_landmark_is_one(self, control: ControlPoints) -> None:
        landmarks = set(control.first[control.part == 0].tolist())
        for contour in (topology.LIPS_OUTER, topology.LIPS_INNER, topology.JAW, topology.RIGID_WINDOW):
            assert set(contour.tolist()) <= landmarks

    def test_the_mouth_s_are_part_of_the_face_s(self) -> None:
        face, mouth = (
            set(zip(c.first.tolist(), c.second.tolist(), c.part.tolist(), strict=True))
            for c in (FACE_CONTROL, MOUTH_CONTROL)
        )
        assert mouth <= face

    def test_points_lie_between_their_landmarks(self) -> None:
        control = ControlPoints(np.array([3, 5]), np.array([4, 5]), np.array([0.25, 0.0], np.float32))
        points = random_points(478)
        placed = control.of(np.stack([points, 2 * points]))
        assert placed.shape == (2, 2, 3)
        assert np.allclose(placed[0], [0.75 * points[3] + 0.25 * points[4], points[5]])
        assert np.allclose(placed[1], 2 * placed[0])

    @pytest.mark.parametrize("control", [FACE_CONTROL, MOUTH_CONTROL])
    def test_reduced_landmarks_give_the_same_points(self, control: ControlPoints) -> None:
        points = random_points(478)
        kept = np.unique(np.concatenate([control.indices(), [0, 470]]))
        assert np.array_equal(control.within(kept).of(points[kept]), control.of(points))
        assert list(control.indices()) == sorted(set(control.indices().tolist()))
