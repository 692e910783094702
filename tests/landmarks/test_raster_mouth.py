from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.mouth import MAX_COEFFICIENT, OPEN, REST, closing_coefficients, meet_lips
from atldiff.landmarks.raster import dilated, polygons
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIP_GAP_PAIRS, LIPS_INNER, lip_opening

UPPER, LOWER = LIPS_INNER[1:10], LIPS_INNER[:10:-1]


def ellipse(centre: tuple[float, float], radii: tuple[float, float], corners: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], -1)


def shoelace(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def perimeter(points: np.ndarray) -> float:
    return float(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum())


SHAPES = {
    "circle": ellipse((255.3, 256.1), (200, 200), 90),
    "flat": ellipse((250.0, 240.5), (230, 150), 40),
    "triangle": np.array([[20.2, 30.7], [480.5, 60.1], [200.9, 490.4]]),
    "arrow": np.array([[30.0, 30.0], [480.0, 250.0], [30.0, 480.0], [150.0, 250.0]]),
}


class TestPolygons:
    @pytest.mark.parametrize("name", SHAPES)
    def test_area_is_the_shoelace_s(self, name: str) -> None:
        drawn = polygons(SHAPES[name][None], 512)[0]
        assert drawn.sum() / 255 == pytest.approx(shoelace(SHAPES[name]), rel=0.02)

    @pytest.mark.parametrize("radius", [4.0, 10.0, 30.0])
    def test_small_shapes_grow_by_less_than_a_pixel(self, radius: float) -> None:
        points = ellipse((40.3, 39.6), (radius, 0.7 * radius), 24)
        grown = polygons(points[None], 80)[0].sum() / 255 - shoelace(points)
        assert 0 <= grown < 0.8 * perimeter(points) + 2  # the edge's own pixels count as inside

    def test_place(self) -> None:
        points = ellipse((33.25, 51.5), (12, 9), 40)
        drawn = polygons(points[None], 80)[0].astype(np.float64)
        rows, columns = np.mgrid[:80, :80]
        centre = np.array([(drawn * columns).sum(), (drawn * rows).sum()]) / drawn.sum()
        assert np.abs(centre - [33.25, 51.5]).max() < 0.15

    def test_subpixel_shifts_show(self) -> None:
        points = np.stack([ellipse((40 + shift, 40), (10, 10), 40) for shift in (0, 0.25, 0.5)])
        drawn = polygons(points, 80).astype(float)
        columns = (drawn * np.arange(80)).sum(axis=(1, 2)) / drawn.sum(axis=(1, 2))
        assert np.allclose(np.diff(columns), 0.25, atol=0.07)

    def test_frames_are_apart_and_edges_are_soft(self) -> None:
        points = np.stack([ellipse((20, 20), (8, 8), 30), ellipse((60, 60), (8, 8), 30)])
        drawn = polygons(points, 80)
        assert drawn.shape == (2, 80, 80)
        assert drawn.dtype == np.uint8
        assert drawn[0, 20, 20] == drawn[1, 60, 60] == 255
        assert drawn[0, 60, 60] == drawn[1, 20, 20] == 0
        assert ((drawn > 0) & (drawn < 255)).any()

    def test_input_is_left_alone(self) -> None:
        points = SHAPES["triangle"][None].copy()
        polygons(points, 64)
        assert np.array_equal(points[0], SHAPES["triangle"])

    @pytest.mark.parametrize("offset", [(-300.0, 0.0), (0.0, 300.0), (1e6, -1e6), (-1e12, 5.0)])
    def test_outside_of_the_picture_is_empty(self, offset: tuple[float, float]) -> None:
        points = ellipse((40, 40), (20, 20), 30) + np.array(offset)
        assert not polygons(points[None], 80).any()

    def test_partly_outside_is_cut(self) -> None:
        whole = polygons(ellipse((80, 80), (30, 30), 40)[None], 160)[0]
        for dx, dy in ((-70, 0), (50, 0), (0, -70), (55, 55)):
            points = ellipse((80 + dx, 80 + dy), (30, 30), 40)
            part = polygons(points[None], 160)[0]
            shifted = np.roll(whole, (dy, dx), axis=(0, 1))
            inside = np.zeros((160, 160), bool)
            inside[max(0, 50 + dy) : 111 + dy, max(0, 50 + dx) : 111 + dx] = True
            assert np.abs(part[inside].astype(int) - shifted[inside]).mean() < 3

    def test_no_frames(self) -> None:
        assert polygons(np.zeros((0, 20, 2)), 32).shape == (0, 32, 32)


class TestDilated:
    drawn = polygons(ellipse((40, 40), (12, 8), 40)[None], 80)

    def test_range_and_core(self) -> None:
        grown = dilated(self.drawn, 9.0, 6.0)
        assert grown.dtype == np.float32
        assert grown.shape == self.drawn.shape
        assert grown.min() == 0
        assert grown.max() == 1
        assert (grown[self.drawn >= 128] == 1).all()

    def test_falls_with_distance_and_ends_at_its_reach(self) -> None:
        row = dilated(self.drawn, 9.0, 6.0)[0, 40, 40:]
        assert (np.diff(row) <= 0).all()
        edge = int(np.flatnonzero(self.drawn[0, 40, 40:] >= 128)[-1])
        assert (row[: edge + 4] == 1).all()  # flat until the ramp begins
        assert 0 < row[edge + 6] < 1
        assert (row[edge + 9 :] == 0).all()

    def test_monotone_in_reach_and_in_the_map(self) -> None:
        levels = [dilated(self.drawn, reach, 4.0) for reach in (1.0, 4.0, 5.5, 12.0)]
        for small, large in zip(levels, levels[1:], strict=False):
            assert (small <= large).all()
            assert small.sum() < large.sum()
        more = np.maximum(self.drawn, polygons(ellipse((60, 20), (6, 6), 20)[None], 80))
        assert (dilated(self.drawn, 5.0, 4.0) <= dilated(more, 5.0, 4.0)).all()

    def test_empty_maps_stay_empty(self) -> None:
        maps = np.concatenate([np.zeros((1, 80, 80), np.uint8), self.drawn, np.full((1, 80, 80), 90, np.uint8)])
        grown = dilated(maps, 30.0, 4.0)
        assert not grown[0].any()
        assert grown[1].any()
        assert not grown[2].any()  # a shade below one half is not drawn

    def test_full_maps_stay_full(self) -> None:
        assert (dilated(np.full((1, 16, 16), 255, np.uint8), 3.0, 2.0) == 1).all()


def jaw_basis(shape: np.ndarray) -> np.ndarray:
    """Two movements of one standard deviation: the jaw drops by 0.08, and the mouth gets wider."""
    basis = np.zeros((2, 478, 3))
    below = shape[:, 1] > shape[LIPS_INNER, 1].mean()
    basis[0, :, 1] = 0.08 * below
    basis[0, LIPS_INNER[11:], 1] = 0.08
    basis[0, LIPS_INNER[1:10], 1] = 0
    basis[1, LIPS_INNER, 0] = 0.05 * np.sign(shape[LIPS_INNER, 0])
    return basis


def with_opening(gap: float) -> np.ndarray:
    """The mean face with all inner-lip pairs `gap` apart."""
    shape = mean_shape().copy()
    middle = (shape[UPPER, 1] + shape[LOWER, 1]) / 2
    shape[UPPER, 1], shape[LOWER, 1] = middle - gap / 2, middle + gap / 2
    shape[UPPER, 2] = shape[LOWER, 2]
    shape[UPPER, 0] = shape[LOWER, 0]
    return shape


def vertical_gaps(shapes: np.ndarray) -> np.ndarray:
    return shapes[..., LOWER, 1] - shapes[..., UPPER, 1]


class TestClosing:
    def test_pairs_are_the_topology_s(self) -> None:
        pairs = {(int(a), int(b)) for a, b in zip(UPPER, LOWER, strict=True)}
        assert {(int(a), int(b)) for a, b in LIP_GAP_PAIRS} <= pairs

    @pytest.mark.parametrize("gap", [0.05, 0.1, 0.2])
    def test_open_lips_close(self, gap: float) -> None:
        shape = with_opening(gap)
        basis = jaw_basis(shape)
        solution = closing_coefficients(shape, basis)
        assert solution.dtype == np.float32
        assert solution.shape == (2,)
        closed = shape + np.tensordot(solution, basis, 1)
        assert np.allclose(vertical_gaps(closed), REST, atol=0.02 * gap + 0.001)
        assert float(lip_opening(closed)) < OPEN
        assert abs(solution[1]) < 1e-6  # widening closes nothing: the most probable answer leaves it out

    def test_closed_lips_stay(self) -> None:
        for gap in (0.0, 0.02, OPEN - 1e-3):
            assert not closing_coefficients(with_opening(gap), jaw_basis(mean_shape())).any()

    def test_coefficients_are_bounded(self) -> None:
        shape = with_opening(0.9)
        solution = closing_coefficients(shape, jaw_basis(shape))
        assert solution[0] == -MAX_COEFFICIENT

    def test_a_basis_that_cannot_close_gives_zero(self) -> None:
        assert np.allclose(closing_coefficients(with_opening(0.2), np.zeros((3, 478, 3))), 0)


class TestMeetLips:
    def test_crossed_lips_meet_half_way(self) -> None:
        neutral = with_opening(0.02)
        displacements = np.zeros((3, 478, 3))
        displacements[0, LOWER, 1] = -0.08
        displacements[1, UPPER, 1] = 0.08
        displacements[2, LOWER[4], 1] = -0.05
        met = neutral + meet_lips(neutral, displacements)
        gaps = vertical_gaps(met)
        assert gaps.min() > -1e-12
        assert np.abs(gaps[:2]).max() < 1e-12  # they touch
        assert np.allclose(met[0, LOWER, 1], neutral[LOWER, 1] - 0.05)  # each gives way by half of 0.06

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_lips_never_cross(self, dtype: type) -> None:
        random = np.random.default_rng(0)
        neutral = with_opening(0.03).astype(dtype)
        displacements = random.normal(0, 0.1, (50, 478, 3)).astype(dtype)
        met = meet_lips(neutral, displacements)
        assert met.dtype == dtype
        assert vertical_gaps(neutral + met).min() > -1e-6

    def test_open_lips_and_all_other_points_are_left_alone(self) -> None:
        random = np.random.default_rng(1)
        neutral = with_opening(0.03)
        displacements = random.normal(0, 0.1, (20, 478, 3))
        given = displacements.copy()
        met = meet_lips(neutral, displacements)
        assert np.array_equal(displacements, given)
        apart = vertical_gaps(neutral + displacements) >= 0
        assert apart.any()
        assert not apart.all()
        for points in (UPPER, LOWER):
            assert np.array_equal(met[:, points][apart], displacements[:, points][apart])
        others = np.setdiff1d(np.arange(478), np.concatenate([UPPER, LOWER]))
        assert np.array_equal(met[:, others], displacements[:, others])
        assert np.array_equal(met[..., [0, 2]], displacements[..., [0, 2]])
