from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.metrics import mean_squared_error as skimage_mse
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from atldiff.evaluation.metrics import image


@pytest.fixture(scope="module")
def pair(examples) -> tuple[np.ndarray, np.ndarray]:
    """Three frames of a face and a noisy, blurred and brightened version of each."""
    portrait = cv2.imread(str(examples / "portrait.jpg"))[..., ::-1]
    frames = np.stack([cv2.resize(portrait[y : y + 300, 100:400], (96, 80)) for y in (40, 60, 80)])
    random = np.random.default_rng(0)
    noisy = np.clip(frames + random.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)
    noisy[1] = cv2.GaussianBlur(frames[1], (0, 0), 2)
    noisy[2] = np.clip(frames[2].astype(int) + 25, 0, 255)
    return noisy, frames


class TestPsnr:
    def test_equals_scikit_image(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        shown, wanted = pair
        errors = image.mean_squared_error(shown, wanted)
        for error, frame, real in zip(errors, shown, wanted, strict=True):
            assert error == pytest.approx(skimage_mse(frame, real), abs=1e-4)
            assert image.psnr(error) == pytest.approx(peak_signal_noise_ratio(real, frame, data_range=255), abs=1e-4)
        pooled = peak_signal_noise_ratio(wanted, shown, data_range=255)
        assert image.psnr(errors.mean()) == pytest.approx(pooled, abs=1e-4)

    def test_infinite_for_the_same_picture(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        assert image.psnr(image.mean_squared_error(pair[1], pair[1]).mean()) == float("inf")

    def test_of_a_known_error(self) -> None:
        assert image.psnr(1.0) == pytest.approx(48.1308, abs=1e-4)  # 20 log10 255


class TestSsim:
    def test_equals_scikit_image(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        shown, wanted = pair
        values = image.ssim(shown, wanted)
        for value, frame, real in zip(values, shown, wanted, strict=True):
            reference = structural_similarity(
                real,
                frame,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
                channel_axis=2,
            )
            assert value == pytest.approx(reference, abs=1e-4)
        assert values.min() < 0.9

    def test_one_for_the_same_picture(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        np.testing.assert_allclose(image.ssim(pair[1], pair[1]), 1, atol=1e-6)


@pytest.mark.parametrize("measure", [image.mean_squared_error, image.ssim, image.flicker_sums])
def test_other_shapes_are_refused(measure) -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for other in (frames[:1], frames[:, :8], frames[..., :1]):
        with pytest.raises(ValueError, match=r"frames: got shapes .* expected one \(T, H, W, 3\)"):
            measure(frames, other)


class TestFlicker:
    def video(self, noise: float, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        still = np.full((20, 32, 32, 1), 120.0)
        return np.clip(np.rint(still + random.normal(0, noise, still.shape)), 0, 255).repeat(3, axis=3).astype(np.uint8)

    def test_white_noise_changes_by_the_root_of_two(self) -> None:
        total, count = image.flicker_sums(self.video(6), self.video(0))
        assert count == 19 * 32 * 32
        assert image.flicker(total, count) == pytest.approx(6 * np.sqrt(2), rel=0.02)

    def test_only_where_the_reference_is_still(self) -> None:
        reference = self.video(0)
        reference[::2, :, 16:] = 200  # the right half blinks
        moving = self.video(0)
        moving[::2, :, 16:] = 10
        total, count = image.flicker_sums(moving, reference)
        assert (total, count) == (0, 19 * 32 * 16)
        reference[::2] = 200
        assert image.flicker(*image.flicker_sums(moving, reference)) is None

    def test_parts_that_overlap_by_a_frame_add_up(self) -> None:
        video, reference = self.video(6), self.video(1, seed=1)
        whole = image.flicker_sums(video, reference)
        parts = [image.flicker_sums(video[a:b], reference[a:b]) for a, b in ((0, 8), (7, 20))]
        assert np.sum(parts, axis=0) == pytest.approx(whole)


class TestSeam:
    border = np.array([[[20, 20], [44, 20], [44, 44], [20, 44]]], np.float64)

    def frame(self, step: int) -> np.ndarray:
        frame = np.full((1, 64, 64, 3), 100, np.uint8)
        frame[:, 20:44, 20:44] += np.uint8(step)
        return frame

    @pytest.mark.parametrize("step", [0, 10, 40])
    def test_the_step_is_measured(self, step: int) -> None:
        found = image.seam_steps(self.frame(step), self.border)
        assert found == pytest.approx([step], abs=0.05 * step)
        assert image.seam_energy(found, np.zeros(1)) == pytest.approx(step, abs=0.05 * step)

    def test_a_turned_border(self) -> None:
        turned = cv2.transform(self.border.astype(np.float32), cv2.getRotationMatrix2D((32, 32), 30, 1))
        canvas = np.full((64, 64, 3), 100, np.uint8)
        cv2.fillPoly(canvas, [np.rint(turned[0]).astype(int)], (130, 130, 130))
        assert image.seam_steps(canvas[None], turned)[0] == pytest.approx(30, rel=0.1)

    def test_what_lies_outside_the_picture_does_not_count(self) -> None:
        assert np.isnan(image.seam_steps(self.frame(9), self.border + 100)).all()
        assert image.seam_energy(np.array([np.nan]), np.zeros(1)) is None
        half = image.seam_steps(self.frame(9), self.border + np.array([30, 0]))
        assert np.isfinite(half).all()

    def test_of_the_same_frames_there_is_none(self) -> None:
        steps = image.seam_steps(self.frame(9), self.border)
        assert image.seam_energy(steps, steps) == 0
