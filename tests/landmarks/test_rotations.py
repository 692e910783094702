from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.landmarks.rotations import nearest_rotations, turned_part_way


def random_rotations(count: int, seed: int) -> np.ndarray:
    matrices = np.linalg.qr(np.random.default_rng(seed).normal(size=(count, 3, 3)))[0]
    return matrices * np.linalg.det(matrices)[:, None, None]


def about_y(angles_deg: np.ndarray) -> np.ndarray:
    zero = np.zeros_like(angles_deg)
    return rotation_from_euler(angles_deg, zero, zero)


def test_a_share_of_a_turn_is_that_share_of_its_angle() -> None:
    shares = np.linspace(0, 1, 21)
    for whole in (0.0, 1e-9, 0.01, 20.0, 90.0, 179.9, -179.9):
        before, after = about_y(np.full(21, 30.0)), about_y(np.full(21, 30.0 + whole))
        assert np.abs(turned_part_way(before, after, shares) - about_y(30 + shares * whole)).max() < 1e-12, whole


def test_the_shorter_way_is_taken() -> None:
    half = turned_part_way(about_y(np.array([170.0])), about_y(np.array([-150.0])), np.array([0.5]))
    assert np.allclose(half, about_y(np.array([190.0])))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ends_are_the_rotations_themselves(dtype: type) -> None:
    before, after = (random_rotations(500, seed).astype(dtype) for seed in (0, 1))
    close = 1e-6 if dtype is np.float32 else 1e-14
    assert np.abs(turned_part_way(before, after, np.zeros(500)) - before).max() < close
    assert np.abs(turned_part_way(before, after, np.ones(500)) - after).max() < close
    between = turned_part_way(before, after, np.full(500, 0.3))
    assert np.abs(np.swapaxes(between, 1, 2) @ between - np.eye(3)).max() < 1e-14
    assert np.linalg.det(between) == pytest.approx(1)


def test_half_turns_have_a_way_as_well() -> None:
    axes = np.concatenate([np.eye(3), [[0.6, 0.8, 0], [0, -0.6, 0.8], [1 / 3, 2 / 3, -2 / 3]]])
    turned = 2 * axes[:, :, None] * axes[:, None] - np.eye(3)
    still = np.tile(np.eye(3), (6, 1, 1))
    quarter = turned_part_way(still, turned, np.full(6, 0.5))
    assert np.allclose(quarter @ quarter, turned, atol=1e-12)


def test_the_nearest_rotation() -> None:
    rotations = random_rotations(200, 3)
    assert np.abs(nearest_rotations(rotations) - rotations).max() < 1e-14
    assert np.abs(nearest_rotations(3 * rotations) - rotations).max() < 1e-14
    stretched = rotations @ np.diag([1.2, 1.0, 0.9])  # a symmetric factor on the right leaves the nearest as it is
    assert np.abs(nearest_rotations(stretched) - rotations).max() < 1e-13
    mirrored = nearest_rotations(np.diag([1.0, 1.0, -0.1]))
    assert np.allclose(mirrored, np.eye(3))
    assert nearest_rotations(rotations.reshape(20, 10, 3, 3).astype(np.float32)).shape == (20, 10, 3, 3)


def test_they_are_scipys() -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    draws = np.random.default_rng(4)
    noisy = random_rotations(500, 5) + draws.normal(0, 0.05, (500, 3, 3))
    polar = pytest.importorskip("scipy.linalg").polar  # releases of Rotation differ in what they do to such matrices
    assert np.abs(nearest_rotations(noisy) - np.stack([polar(each)[0] for each in noisy])).max() < 1e-13
    before = rotation.from_matrix(random_rotations(500, 6))
    shares = draws.uniform(0, 1, 500)
    for most in (1e-7, 0.1, 1.5):
        turn = rotation.from_rotvec(draws.uniform(-most, most, (500, 3)))
        want = before * rotation.from_rotvec(shares[:, None] * turn.as_rotvec())
        got = turned_part_way(before.as_matrix(), (before * turn).as_matrix(), shares)
        assert np.abs(got - want.as_matrix()).max() < 1e-13
