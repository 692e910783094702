"""Whole-face windows put back: the feather, what stays untouched, and what comes back of the picture itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.video.paste import FEATHER_SHARE, feather, paste
from atldiff.video.window import apply, extract, outline

SIDE = 64


def similarity(scale: float, angle_deg: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(angle_deg)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[a, -b, shift[0]], [b, a, shift[1]]])


def around(centre: tuple[float, float], scale: float, angle_deg: float = 0.0) -> np.ndarray:
    """The map of a window of SIDE pixels whose middle lies at `centre` of the picture."""
    matrix = similarity(scale, angle_deg, (0, 0))
    matrix[:, 2] = (SIDE - 1) / 2 - matrix[:, :2] @ np.array(centre)
    return matrix


def smooth(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3))
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.rint((blurred - blurred.min()) / np.ptp(blurred) * 255).astype(np.uint8)


def where(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Window coordinates (H, W, 2) of the picture's pixels."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float64)
    return apply(matrix, np.stack([x, y], -1).reshape(-1, 2)).reshape(*picture.shape[:2], 2)


class TestFeather:
    @pytest.mark.parametrize("side", [32, 64, 128, 127])
    def test_is_zero_at_the_border_and_one_inside(self, side: int) -> None:
        weight = feather(side)
        assert weight.shape == (side, side)
        assert weight.dtype == np.float32
        for border in (weight[0], weight[-1], weight[:, 0], weight[:, -1]):
            assert not border.any()
        reach = int(np.ceil(FEATHER_SHARE * side))
        assert (weight[reach:-reach, reach:-reach] == 1).all()
        assert weight.min() == 0
        assert weight.max() == 1

    def test_is_symmetric_and_rises_smoothly(self) -> None:
        weight = feather(128)
        assert np.array_equal(weight, weight.T)
        assert np.allclose(weight, weight[::-1])
        assert np.allclose(weight, weight[:, ::-1])
        rise = np.diff(weight[64, :64])
        assert rise.min() >= 0
        assert rise.max() < 0.12  # no step: a border of 15 px
        assert rise[0] < 0.5 * rise.max()


class TestPaste:
    def test_whole_pixels_in_place(self) -> None:
        """Without scale or rotation a window's pixels go where they belong, exactly."""
        picture = np.full((200, 300, 3), 40, np.uint8)
        window = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3)).astype(np.float32)
        out = paste(picture, window, similarity(1, 0, (-100, -50)))
        assert out.dtype == np.uint8
        assert out.shape == picture.shape
        weight = feather(SIDE)[..., None]
        wanted = np.rint(40 + weight * (window - 40))
        assert np.abs(out[50 : 50 + SIDE, 100 : 100 + SIDE] - wanted).max() <= 1
        untouched = out.copy()
        untouched[50 : 50 + SIDE, 100 : 100 + SIDE] = 40
        assert (untouched == 40).all()

    def test_the_picture_and_the_window_are_left_alone(self) -> None:
        picture, window = smooth(150, 150), np.zeros((SIDE, SIDE, 3), np.float32)
        matrix = around((70, 80), 0.5, 20)
        kept = picture.copy(), window.copy(), matrix.copy()
        out = paste(picture, window, matrix)
        assert not np.shares_memory(out, picture)
        for before, after in zip(kept, (picture, window, matrix), strict=True):
            assert np.array_equal(before, after)

    @pytest.mark.parametrize("scale", [0.3, 0.5, 1.0, 1.7])
    @pytest.mark.parametrize("angle", [0, 25, -80, 170])
    def test_a_window_is_pasted_where_it_was_cut(self, scale: float, angle: float) -> None:
        picture = smooth(400, 400)
        matrix = around((190, 210), scale, angle)
        window = np.full((SIDE, SIDE, 3), 255, np.float32)
        out = paste(picture, window, matrix)
        at = where(picture, matrix)
        reach = FEATHER_SHARE * SIDE + 1
        inside = ((at > reach) & (at < SIDE - 1 - reach)).all(axis=-1)
        outside = ((at < -1) | (at > SIDE)).any(axis=-1)
        assert inside.sum() > 100
        assert (out[inside] == 255).all()
        assert np.array_equal(out[outside], picture[outside])

    @pytest.mark.parametrize(("scale", "angle"), [(1.0, 0), (0.7, 15), (0.45, -30), (1.5, 4)])
    def test_the_picture_s_own_window_changes_little(self, scale: float, angle: float) -> None:
        picture = smooth(300, 300)
        matrix = around((150.3, 140.7), scale, angle)
        out = paste(picture, extract(picture, matrix, SIDE).astype(np.float32), matrix)
        difference = np.abs(out.astype(int) - picture)
        assert difference.max() <= 12
        assert difference.mean() < 1

    def test_no_shift_comes_of_cutting_and_pasting(self) -> None:
        """A spot stays on its place: half a pixel off would show."""
        y, x = np.mgrid[:300, :300]
        for scale, angle in ((1.0, 0), (0.4, 10), (1.6, -20)):
            spot = 200 * np.exp(-((x - 151.5) ** 2 + (y - 143.2) ** 2) / (2 * (6 / scale) ** 2))
            picture = np.repeat(np.rint(spot)[..., None], 3, -1).astype(np.uint8)
            matrix = around((150, 150), scale, angle)
            out = paste(picture, extract(picture, matrix, SIDE).astype(np.float32), matrix)[..., 0].astype(float)
            centre = np.array([(x * out).sum(), (y * out).sum()]) / out.sum()
            before = np.array([(x * picture[..., 0]).sum(), (y * picture[..., 0]).sum()]) / picture[..., 0].sum()
            assert np.abs(centre - before).max() < 0.1

    @pytest.mark.parametrize("centre", [(0, 100), (299, 0), (150, 199), (-20, -20), (310, 215)])
    def test_partly_outside(self, centre: tuple[float, float]) -> None:
        picture = smooth(200, 300)
        matrix = around(centre, 0.6, 12)
        out = paste(picture, np.full((SIDE, SIDE, 3), 255, np.float32), matrix)
        at = where(picture, matrix)
        reach = FEATHER_SHARE * SIDE + 1
        inside = ((at > reach) & (at < SIDE - 1 - reach)).all(axis=-1)
        assert inside.any()
        assert (out[inside] == 255).all()
        outside = ((at < -1) | (at > SIDE)).any(axis=-1)
        assert np.array_equal(out[outside], picture[outside])

    @pytest.mark.parametrize("centre", [(-500, 50), (50, -500), (900, 50), (50, 900), (-500, 900)])
    def test_wholly_outside(self, centre: tuple[float, float]) -> None:
        picture = smooth(200, 300)
        out = paste(picture, np.full((SIDE, SIDE, 3), 255, np.float32), around(centre, 1.0))
        assert np.array_equal(out, picture)
        assert not np.shares_memory(out, picture)

    def test_larger_than_the_picture(self) -> None:
        picture = smooth(20, 30)
        matrix = around((15, 10), 1.0)
        assert (paste(picture, np.full((SIDE, SIDE, 3), 9, np.float32), matrix) == 9).all()
        low, high = outline(matrix, SIDE)
        assert (low < 0).all()
        assert (high > [30, 20]).all()

    def test_levels_beyond_the_range_are_cut(self) -> None:
        """A window may hold anything, and interpolation overshoots: nothing wraps."""
        picture = smooth(200, 200)
        for level, wanted in ((400.0, 255), (-90.0, 0)):
            out = paste(picture, np.full((SIDE, SIDE, 3), level, np.float32), around((100, 100), 1.0))
            assert out[100, 100].tolist() == [wanted] * 3
