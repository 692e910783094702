from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.shape import mean_shape
from atldiff.video.window import (
    FACE_EXTENT,
    FACE_ORIGIN,
    RIGID_POINTS,
    STORED_WINDOW,
    TEMPLATE,
    WindowGeometry,
    apply,
    extract,
    face_window,
    fit_still_window,
    fit_window,
    invert,
    smoothed,
)

WHOLE = WindowGeometry(side=128, origin=(0, 0))


def similarity(scale: float, angle_deg: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(angle_deg)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[a, -b, shift[0]], [b, a, shift[1]]])


def face_at(matrix: np.ndarray, frames: int = 1, depth: bool = False) -> np.ndarray:
    """Points (T, 478, 2 or 3) whose rigid ones are the template carried by `matrix`; all others are far off."""
    points = np.full((frames, 478, 3 if depth else 2), 1e4)
    points[:, list(RIGID_POINTS), :2] = apply(matrix, TEMPLATE)
    return points


@pytest.mark.parametrize("geometry", [WHOLE, STORED_WINDOW, WindowGeometry(80, (24, 26))])
@pytest.mark.parametrize("depth", [False, True])
def test_the_template_itself_is_the_identity(geometry: WindowGeometry, depth: bool) -> None:
    fitted = fit_window(face_at(similarity(1, 0, (0, 0)), 3, depth), geometry)
    assert fitted.shape == (3, 2, 3)
    wanted = similarity(1, 0, (-geometry.origin[0], -geometry.origin[1]))
    assert np.allclose(fitted, wanted, atol=1e-9)


@pytest.mark.parametrize("placed", [(0.4, 0, (10, 20)), (2.5, 33, (400, -70)), (9, -120, (900, 1500))])
def test_fit_undoes_a_known_placement(placed: tuple[float, float, tuple[float, float]]) -> None:
    placement = similarity(*placed)
    fitted = fit_window(face_at(placement), WHOLE)[0]
    points = np.random.default_rng(0).uniform(0, 128, (50, 2))
    assert np.allclose(apply(fitted, apply(placement, points)), points, atol=1e-6)
    assert np.allclose(fitted, invert(placement), atol=1e-9)


def test_fit_is_least_squares_and_never_reflects() -> None:
    random = np.random.default_rng(1)
    points = face_at(similarity(2, 15, (100, 50)))
    points[:, list(RIGID_POINTS)] += random.normal(0, 6, (1, 13, 2))
    fitted = fit_window(points, WHOLE)[0]
    rigid = points[0, list(RIGID_POINTS)]
    best = ((apply(fitted, rigid) - TEMPLATE) ** 2).sum()
    for _ in range(50):
        other = similarity(1 + random.normal(0, 0.02), random.normal(0, 1), tuple(random.normal(0, 0.5, 2)))
        assert ((apply(other, apply(fitted, rigid)) - TEMPLATE) ** 2).sum() > best
    mirrored = points * np.array([-1.0, 1.0])
    assert np.linalg.det(fit_window(mirrored, WHOLE)[0, :, :2]) > 0


def test_apply_and_invert() -> None:
    random = np.random.default_rng(2)
    matrices = random.normal(size=(4, 5, 2, 3))
    points = random.normal(size=(4, 5, 7, 2))
    moved = apply(matrices, points)
    byhand = matrices[2, 3, :, :2] @ points[2, 3, 6] + matrices[2, 3, :, 2]
    assert np.allclose(moved[2, 3, 6], byhand)
    assert np.allclose(apply(invert(matrices), moved), points)
    assert apply(matrices[0, 0], points[0, 0]).shape == (7, 2)


def test_smoothing_reduces_jitter_and_keeps_the_mean() -> None:
    random = np.random.default_rng(3)
    clean = face_at(similarity(2, 10, (100, 60)), 60)
    noisy = clean.copy()
    noisy[:, list(RIGID_POINTS)] += random.normal(0, 0.5, (60, 1, 2)) + random.normal(0, 1.0, (60, 13, 2))
    raw, smooth = fit_window(noisy, WHOLE), fit_window(noisy, WHOLE, 1.5)
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.4 * np.abs(np.diff(raw, axis=0)).mean()
    assert np.allclose(smooth.mean(axis=0), raw.mean(axis=0), atol=0.2)
    centre = np.array([[64.0, 58.0]])
    placed = apply(similarity(2, 10, (100, 60)), centre)
    assert np.abs(apply(smooth, placed) - centre).max() < np.abs(apply(raw, placed) - centre).max()


def test_smoothing_follows_a_steady_drift_and_takes_one_frame() -> None:
    points = np.concatenate([face_at(similarity(2, 0, (100 + 2 * t, 60))) for t in range(40)])
    smooth = fit_window(points, WHOLE, 1.5)
    assert np.allclose(smooth[10:-10], fit_window(points, WHOLE)[10:-10], atol=1e-3)
    assert np.allclose(fit_window(points[:1], WHOLE, 1.5), fit_window(points[:1], WHOLE))


def test_smoothing_is_a_gaussian_whose_ends_are_held() -> None:
    moment = np.zeros(9)
    moment[4] = 1
    bell = [0.0, 0.00026386, 0.10645077, 0.78657074, 0.10645077, 0.00026386, 0.0]  # of sigma 0.5, cut off at 2
    assert np.allclose(smoothed(moment, 0.5)[1:8], bell, atol=1e-8)
    assert np.allclose(smoothed(np.full((4, 2), 7.0), 3.0), 7)
    assert np.allclose(smoothed(np.array([1.0, 0, 0, 0, 0, 0]), 0.5)[:2], [1 - 0.10671463, 0.10671463], atol=1e-8)


@pytest.mark.parametrize("sigma", [0.3, 1.5, 4.0])
@pytest.mark.parametrize("shape", [(2,), (40,), (40, 2)])
def test_smoothing_is_scipys(sigma: float, shape: tuple[int, ...]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    values = np.random.default_rng(0).normal(size=shape)
    assert np.abs(smoothed(values, sigma) - ndimage.gaussian_filter1d(values, sigma, 0, mode="nearest")).max() < 1e-14


def gradient(height: int, width: int) -> np.ndarray:
    """A picture whose red grows with x, whose green grows with y and whose blue falls with both."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([255 * x / width, 255 * y / height, 255 - 120 * (x / width + y / height)], -1)


@pytest.mark.parametrize(
    ("scale", "angle", "shift"),
    [(1.0, 0, (-40, -30)), (0.75, 12, (20, -60)), (0.2, -30, (-47, 22)), (1.9, 5, (-200, -150))],
)  # fmt: skip
def test_extract_is_direct_sampling_of_a_gradient(scale: float, angle: float, shift: tuple[float, float]) -> None:
    height, width, side = 480, 640, 64
    matrix = similarity(scale, angle, shift)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    where = apply(invert(matrix), np.stack([x.ravel(), y.ravel()], -1)).reshape(side, side, 2)
    margin = 3 / scale
    inside = ((where > margin) & (where < np.array([width, height]) - 1 - margin)).all(axis=-1)
    assert inside.sum() > 500
    wanted = np.stack([
        255 * where[..., 0] / width,
        255 * where[..., 1] / height,
        255 - 120 * (where[..., 0] / width + where[..., 1] / height),
    ], -1)  # fmt: skip
    got = extract(np.rint(gradient(height, width)).astype(np.uint8), matrix, side)
    assert got.shape == (side, side, 3)
    assert got.dtype == np.uint8
    assert np.abs(got[inside] - wanted[inside]).max() <= 1.5  # one level, and the rounding of the picture


def test_edges_replicate() -> None:
    picture = np.full((50, 60, 3), 77, np.uint8)
    for matrix in (similarity(1, 0, (30, 30)), similarity(0.2, 40, (30, 30)), similarity(0.3, 0, (-500, 900))):
        assert (extract(picture, matrix, 64) == 77).all()


@pytest.mark.parametrize("reduction", [3.0, 4.0, 7.3])
def test_a_fine_pattern_shrinks_to_grey(reduction: float) -> None:
    y, x = np.mgrid[:400, :400]
    board = np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[..., None], 3, -1)
    window = extract(board, similarity(1 / reduction, 7, (3, 5)), 40)[4:-4, 4:-4]
    assert np.abs(window.astype(int) - 127).max() < 12


def test_detail_within_the_window_s_means_survives() -> None:
    y, x = np.mgrid[:400, :400]
    waves = 127 + 100 * np.sin(2 * np.pi * x / 40)
    picture = np.repeat(waves.astype(np.uint8)[..., None], 3, -1)
    window = extract(picture, similarity(0.25, 0, (0, 0)), 96)[10:-10, 10:-10].astype(int)
    assert np.ptp(window) > 150  # ten window pixels a wave


def test_only_the_seen_part_matters() -> None:
    """A window far from the rest of a large picture is the same as one from a cut-out."""
    picture = np.random.default_rng(4).integers(0, 256, (600, 800, 3), np.uint8)
    matrix = similarity(0.3, 10, (-100, -60))
    changed = picture.copy()
    changed[:, :100] = 0
    changed[:60] = 0
    assert np.array_equal(extract(picture, matrix, 64), extract(changed, matrix, 64))


class TestWholeFaces:
    """The whole-face window: hair to chin, at any side, standing still over a clip."""

    @pytest.mark.parametrize("side", [64, 128, 256])
    def test_its_scale_follows_its_side(self, side: int) -> None:
        geometry = face_window(side)
        assert geometry.side == side
        fitted = fit_still_window(face_at(similarity(1, 0, (0, 0))), geometry)
        corners = apply(fitted, np.array([FACE_ORIGIN, (FACE_ORIGIN[0] + FACE_EXTENT, FACE_ORIGIN[1] + FACE_EXTENT)]))
        assert np.allclose(corners, [[0, 0], [side, side]], atol=1e-6)
        eyes = apply(fitted, TEMPLATE[[0, 3]])
        assert np.linalg.norm(eyes[1] - eyes[0]) == pytest.approx(72 * side / FACE_EXTENT)

    def test_at_128_the_outer_eye_corners_are_41_px_apart(self) -> None:
        assert 72 * face_window(128).scale == pytest.approx(41, abs=0.5)

    def test_windows_of_different_sides_show_the_same_part(self) -> None:
        points = face_at(similarity(2.3, 11, (300, 250)))
        small, large = (fit_still_window(points, face_window(side)) for side in (64, 256))
        assert np.allclose(4 * small, large, atol=1e-9)

    def test_a_face_lies_in_it_from_hair_to_chin(self) -> None:
        for scale, shift in ((40.0, 100.0), (300.0, 900.0)):
            points = mean_shape() * scale + shift
            matrix = fit_still_window(points[None], face_window(128))
            placed = apply(matrix, points[:468, :2])
            assert placed.min() > 8
            assert placed.max() < 120
            assert np.ptp(placed[:, 1]) > 70
            assert np.abs(placed.mean(axis=0) - 64).max() < 20

    def test_stands_still_over_a_clip(self) -> None:
        """One map, that of the median; a few frames gone astray do not move it."""
        placement = similarity(2, 10, (100, 60))
        points = face_at(placement, 21)
        drift = np.linspace(-9, 9, 21)[:, None, None]
        points += drift
        matrix = fit_still_window(points, face_window(128))
        assert matrix.shape == (2, 3)
        assert np.allclose(matrix, fit_window(face_at(placement), face_window(128))[0], atol=1e-6)
        points[:4] += 5000
        points[-4:] -= 5000
        assert np.allclose(fit_still_window(points, face_window(128)), matrix, atol=1e-6)
        head = apply(matrix, points[4:-4, list(RIGID_POINTS)])
        assert np.ptp(head[:, 0, 0]) > 1  # so the head moves inside it

    def test_a_scaled_window_of_any_geometry(self) -> None:
        placement = similarity(1.7, -20, (50, 80))
        whole = fit_window(face_at(placement), WindowGeometry(96, (16, 16)))[0]
        half = fit_window(face_at(placement), WindowGeometry(48, (16, 16), 0.5))[0]
        assert np.allclose(half, 0.5 * whole)
