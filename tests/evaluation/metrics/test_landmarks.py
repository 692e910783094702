from __future__ import annotations

import numpy as np
import pytest

from atldiff.evaluation.metrics import landmarks


@pytest.fixture
def track() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, (9, 20, 2))


def test_lmd_is_the_mean_distance(track: np.ndarray) -> None:
    assert landmarks.landmark_distance(track, track) == 0
    assert landmarks.landmark_distance(track + [3.0, 4.0], track) == pytest.approx(5)
    one = track.copy()
    one[0, 0] += [3.0, 4.0]
    assert landmarks.landmark_distance(one, track) == pytest.approx(5 / (9 * 20))


def test_lvd_is_over_time(track: np.ndarray) -> None:
    assert landmarks.landmark_velocity_distance(track + [30.0, -7.0], track) == pytest.approx(0)  # a constant shift
    drifting = track + np.arange(9)[:, None, None] * [3.0, 4.0]
    assert landmarks.landmark_velocity_distance(drifting, track) == pytest.approx(5)
    assert landmarks.landmark_velocity_distance(track[:1], track[:1]) is None


def test_jitter_is_the_second_difference() -> None:
    times = np.arange(12.0)
    line = np.stack([3 * times, -times], -1)[:, None]  # (12, 1, 2), steady
    assert landmarks.jitter(line) == pytest.approx(0)
    assert landmarks.jitter(line + 0.5 * (times**2)[:, None, None] * [0.6, 0.8]) == pytest.approx(1)
    shaking = line + np.where(times % 2, 1.0, -1.0)[:, None, None] * [1.0, 0.0]
    assert landmarks.jitter(shaking) == pytest.approx(4)  # 1 - 2 (-1) + 1
    assert landmarks.jitter(line[:2]) is None


def test_what_is_refused(track: np.ndarray) -> None:
    lost = track.copy()
    lost[3] = np.nan
    for measure in (landmarks.landmark_distance, landmarks.landmark_velocity_distance):
        with pytest.raises(ValueError, match="points: got NaN"):
            measure(lost, track)
        with pytest.raises(ValueError, match="points: got shapes"):
            measure(track[:3], track)
        with pytest.raises(ValueError, match="points: got shapes"):
            measure(track[:0], track[:0])
