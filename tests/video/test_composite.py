from __future__ import annotations

import numpy as np
import pytest

from atldiff.video.composite import WindowResult, composite
from atldiff.video.window import apply, invert

SIDE = 32


def matrix(scale: float, corner: tuple[float, float], angle_deg: float = 0.0) -> np.ndarray:
    """The map that takes picture pixels to a window whose first pixel is `corner` of the picture."""
    angle = np.radians(angle_deg)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([linear, -(linear @ np.array(corner, float))[:, None]], 1)


def window(place: np.ndarray, change: float = 0.0, cavity: float = 0.0, seed: int = 0) -> WindowResult:
    prior = np.random.default_rng(seed).uniform(40, 200, (SIDE, SIDE, 3)).astype(np.float32)
    return WindowResult(np.full_like(prior, change), prior, np.full((SIDE, SIDE), cavity, np.float32), place)


@pytest.fixture
def canvas() -> np.ndarray:
    return np.random.default_rng(5).integers(60, 190, (120, 140, 3), np.uint8)


def footprint(place: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...], margin: float = 3.0) -> np.ndarray:
    """The canvas pixels that lie in the window, or within `margin` window pixels of it."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    there = apply(place, np.stack([x + corner[0], y + corner[1]], -1).reshape(-1, 2).astype(float))
    return ((there > -margin) & (there < SIDE - 1 + margin)).all(-1).reshape(shape[:2])


PLACES = [matrix(1.0, (30, 20)), matrix(0.5, (20, 10), 12), matrix(2.2, (60, 60), -30)]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_painted_changes_nothing(canvas: np.ndarray, place: np.ndarray) -> None:
    before = canvas.copy()
    composite(canvas, (0, 0), window(place))
    assert np.array_equal(canvas, before)


@pytest.mark.parametrize("place", PLACES)
def test_a_difference_is_added_inside_and_nowhere_else(canvas: np.ndarray, place: np.ndarray) -> None:
    before = canvas.copy().astype(int)
    composite(canvas, (0, 0), window(place, change=20.0))
    difference = canvas.astype(int) - before
    inside = footprint(place, (0, 0), canvas.shape, margin=-3.0)
    assert inside.sum() > 50
    assert (difference[inside] == 20).all()  # the canvas keeps its own texture
    assert not difference[~footprint(place, (0, 0), canvas.shape)].any()


def test_the_cavity_is_replaced(canvas: np.ndarray) -> None:
    place = matrix(1.0, (30, 20))
    before = canvas.copy()
    result = window(place, change=-15.0)
    result.cavity[10:20, 8:24] = 1.0
    composite(canvas, (0, 0), result)
    wanted = np.rint((result.prior + result.change)[10:20, 8:24]).astype(np.uint8)
    assert np.array_equal(canvas[30:40, 38:54], wanted)
    assert np.array_equal(canvas[23:29, 33:60], before[23:29, 33:60] - 15)  # beside it the difference is added


def test_a_half_cavity_is_a_blend(canvas: np.ndarray) -> None:
    place = matrix(1.0, (30, 20))
    before = canvas.astype(np.float64)
    result = window(place, change=10.0, cavity=0.5)
    composite(canvas, (0, 0), result)
    # Half of the canvas with the difference added, half of the window's frame.
    wanted = 0.5 * (before[20:52, 30:62] + 10) + 0.5 * (result.prior + result.change)
    assert np.abs(canvas[22:50, 32:60] - wanted[2:-2, 2:-2]).max() <= 1


@pytest.mark.parametrize("corner", [(0, 0), (17, 9), (45, 33)])
def test_a_canvas_that_is_a_part_of_the_picture(canvas: np.ndarray, corner: tuple[int, int]) -> None:
    place = matrix(0.8, (50, 40), 8)
    whole = canvas.copy()
    result = window(place, change=25.0, cavity=0.3)
    composite(whole, (0, 0), result)
    part = canvas[corner[1] :, corner[0] :].copy()
    composite(part, corner, result)
    assert np.array_equal(part, whole[corner[1] :, corner[0] :])


@pytest.mark.parametrize("start", [(-10, 20), (125, 100), (30, -25), (-20, -20)])
def test_a_window_partly_outside(canvas: np.ndarray, start: tuple[int, int]) -> None:
    place = matrix(1.0, start)
    before = canvas.copy().astype(int)
    composite(canvas, (0, 0), window(place, change=30.0))
    difference = canvas.astype(int) - before
    inside = footprint(place, (0, 0), canvas.shape, margin=-2.0)
    assert inside.any()
    assert (difference[inside] == 30).all()
    assert not difference[~footprint(place, (0, 0), canvas.shape)].any()


@pytest.mark.parametrize("start", [(-80, 20), (400, 30), (30, -90), (30, 500), (1e6, 1e6)])
def test_a_window_wholly_outside_changes_nothing(canvas: np.ndarray, start: tuple[float, float]) -> None:
    before = canvas.copy()
    composite(canvas, (0, 0), window(matrix(1.0, start), change=30.0, cavity=1.0))
    assert np.array_equal(canvas, before)


def test_levels_saturate(canvas: np.ndarray) -> None:
    place = matrix(1.0, (30, 20))
    for change, level in ((400.0, 255), (-400.0, 0)):
        bright = canvas.copy()
        composite(bright, (0, 0), window(place, change=change))
        assert (bright[25:47, 35:57] == level).all()


def test_a_window_larger_than_the_canvas() -> None:
    canvas = np.full((20, 24, 3), 100, np.uint8)
    place = matrix(0.1, (-100, -100))
    low, high = apply(invert(place), np.array([[0.0, 0.0], [SIDE, SIDE]]))
    assert (low < 0).all()
    assert (high > 24).all()
    composite(canvas, (0, 0), window(place, change=7.0))
    assert (canvas == 107).all()
