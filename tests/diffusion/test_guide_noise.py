"""Landmarks-Guide Noise as published: dots, blur, scaling, and noise that windows share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.diffusion.noise import frame_noise, gaussian_blur, guide_mask, landmark_dots

SIDE = 128


def points(*places: tuple[float, float]) -> np.ndarray:
    return np.array(places, np.float32)[None, None]


class TestDots:
    def test_lie_at_the_truncated_pixel_row_y_column_x(self) -> None:
        dots = landmark_dots(points((10.9, 20.2)), SIDE)
        assert dots.shape == (1, 1, SIDE, SIDE)
        assert dots.sum() == 1
        assert dots[0, 0, 20, 10] == 1

    def test_outside_they_are_clamped_and_do_not_wrap(self) -> None:
        dots = landmark_dots(points((-3.0, 5.0), (500.0, 127.9)), SIDE)[0, 0]
        assert dots[5, 0] == 1
        assert dots[127, 127] == 1
        assert dots.sum() == 2

    def test_frames_and_clips_are_apart(self) -> None:
        places = np.array([[[[1.0, 1.0]], [[2.0, 2.0]]], [[[3.0, 3.0]], [[4.0, 4.0]]]])
        dots = landmark_dots(places, SIDE)
        for clip in range(2):
            for frame in range(2):
                assert np.argwhere(dots[clip, frame]).tolist() == [[1 + frame + 2 * clip] * 2]


class TestBlur:
    @pytest.mark.parametrize("kernel", [11, 25])
    def test_equals_opencv_with_mirrored_edges(self, kernel: int) -> None:
        maps = np.random.default_rng(0).random((2, SIDE, SIDE)).astype(np.float32)
        blurred = gaussian_blur(maps, kernel)
        for ours, picture in zip(blurred, maps, strict=True):
            theirs = cv2.GaussianBlur(picture, (kernel, kernel), 0, borderType=cv2.BORDER_REFLECT_101)
            np.testing.assert_allclose(ours, theirs, atol=2e-6)

    def test_sigma_is_the_published_one(self) -> None:
        """papers.md 1.5: sigma 2.0 for kernel 11 and 4.1 for 25."""
        for kernel, sigma in ((11, 2.0), (25, 4.1)):
            dot = np.zeros((SIDE, SIDE), np.float32)
            dot[64, 64] = 1
            row = gaussian_blur(dot, kernel)[64]
            assert float(np.log(row[64] / row[65])) == pytest.approx(1 / (2 * sigma**2), rel=1e-4)


class TestMask:
    def test_is_scaled_to_zero_and_one_in_each_frame(self) -> None:
        places = np.random.default_rng(0).random((2, 3, 68, 2)) * 100 + 10
        mask = guide_mask(places, SIDE, 11)
        assert mask.shape == (2, 1, 3, SIDE, SIDE)
        assert mask.dtype == np.float32
        assert (mask.min((3, 4)) == 0).all()
        assert np.allclose(mask.max((3, 4)), 1)

    def test_over_the_clip_frames_depend_on_each_other(self) -> None:
        lonely, crowded = points((30.0, 30.0)), points((60.0, 60.0), (61.0, 60.0))
        both = np.concatenate([np.repeat(lonely, 2, axis=2), crowded], axis=1)
        clip, frame = guide_mask(both, SIDE, 11, over_clip=True), guide_mask(both, SIDE, 11)
        assert clip[0, 0, 0].max() < 0.8 < frame[0, 0, 0].max()
        assert clip[0, 0, 1].max() == 1

    def test_covers_what_the_published_masks_cover(self) -> None:
        """papers.md 1.5, on a synthetic face: about 1 % and 2 % of the pixels above half scale."""
        angle = np.arange(68) / 68 * 2 * np.pi
        face = np.stack([64 + 35 * np.cos(angle), 64 + 45 * np.sin(angle)], -1)[None, None]
        narrow, wide = (guide_mask(face, SIDE, kernel) for kernel in (11, 25))
        assert 0.005 < (narrow > 0.5).mean() < (wide > 0.5).mean() < 0.25

    def test_has_no_gradient_trap_when_a_frame_is_even(self) -> None:
        everywhere = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(1, 1, -1, 2)
        assert np.isfinite(guide_mask(everywhere, 8, 3)).all()


class TestFrameNoise:
    def test_is_a_function_of_seed_and_frame(self) -> None:
        whole = frame_noise(7, 0, 12, 3, 16)
        assert whole.shape == (3, 12, 16, 16)
        assert np.array_equal(whole[:, 5:9], frame_noise(7, 5, 4, 3, 16))
        assert not np.array_equal(whole[:, 0], whole[:, 1])
        assert not np.array_equal(whole, frame_noise(8, 0, 12, 3, 16))

    def test_is_normal(self) -> None:
        noise = frame_noise(1, 0, 20, 3, 64)
        assert abs(float(noise.mean())) < 0.01
        assert float(noise.std()) == pytest.approx(1, abs=0.01)
