from __future__ import annotations

import numpy as np
import pytest

from atldiff.evaluation.metrics import motion
from atldiff.landmarks.blink import blink_displacement, blink_pulse
from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.landmarks.shape import mean_shape


class TestBlinks:
    def opening(self, blinks: list[tuple[int, int]], frames: int = 250) -> np.ndarray:
        random = np.random.default_rng(0)
        opening = 0.3 + random.normal(0, 0.01, frames)
        for start, length in blinks:
            opening[start : start + length] = 0.05
        return opening

    def test_counts_them(self) -> None:
        opening = self.opening([(20, 3), (90, 5), (200, 8)])
        assert motion.blink_count(opening, 25) == 3
        assert motion.blink_rate(opening, 25) == pytest.approx(3 * 60 / 10)

    def test_a_trembling_or_closed_eye_does_not_blink(self) -> None:
        assert motion.blink_count(self.opening([]), 25) == 0
        assert motion.blink_count(self.opening([(50, 40)]), 25) == 0  # 1.6 s
        assert motion.blink_count(self.opening([(0, 4)]), 25) == 0  # was closed before the clip began
        half = self.opening([])
        half[60:64] = 0.2  # a squint
        assert motion.blink_count(half, 25) == 0

    def test_too_short(self) -> None:
        assert motion.blink_count(np.ones(2), 25) == 0
        assert motion.blink_rate(np.zeros(0), 25) is None

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_sees_the_blinks_of_this_package(self, seed: int) -> None:
        shape = mean_shape().astype(np.float32)
        middles = 30 + 60 * np.arange(24) + np.random.default_rng(seed).uniform(0, 30, 24)
        pulses = [[blink_pulse(frame - middle, 1.2, 2.0) for frame in range(1500)] for middle in middles]
        closure = np.max(pulses, axis=0).astype(np.float32)
        opening = motion.eye_opening(shape + blink_displacement(shape, closure))
        assert 0.2 < opening.max() < 0.5
        assert motion.blink_count(opening, 25) == len(middles)


def test_head_motion_range_is_the_widest_angle() -> None:
    swing = np.linspace(-10, 10, 201)
    none = np.zeros(201)
    for angles in ((swing, none, none), (none, swing, 0.2 * swing), (0.5 * swing, none, swing)):
        assert motion.head_motion_range(rotation_from_euler(*angles)) == pytest.approx(18, abs=0.1)  # 5 % to 95 %
    assert motion.head_motion_range(np.eye(3)[None].repeat(5, 0)) == 0


def test_silent_mouth_motion_counts_silent_frames_only() -> None:
    opening = np.array([0.1, 0.3, 0.1, 0.10, 0.11, 0.10, 0.11])
    silent = np.array([False, False, False, True, True, True, True])
    assert motion.silent_mouth_motion(opening, silent) == pytest.approx(1.0)  # 0.01 of the eye distance
    assert motion.silent_mouth_motion(opening, silent & False) is None
