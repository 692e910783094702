from __future__ import annotations

import numpy as np
import pytest

from atldiff.data.sync import best_lag, speech_level, sync_peak
from atldiff.timebase import COLUMNS_PER_FRAME, MEL_BANDS


class TestBestLag:
    def test_finds_the_lag_and_its_sign(self) -> None:
        random = np.random.default_rng(0)
        series = np.convolve(random.normal(size=80), np.hanning(7), "same")
        for lag in (-6, -1, 0, 4):
            correlation, at = best_lag(series[10:70], series[10 - lag : 70 - lag], 6)
            assert (round(correlation, 6), at) == (1.0, lag)

    def test_of_equal_peaks_the_nearest_zero_counts(self) -> None:
        wave = np.sin(np.arange(80) * 2 * np.pi / 5)
        assert best_lag(wave, wave, 12)[1] == 0

    def test_nothing_to_compare(self) -> None:
        series = np.random.default_rng(0).normal(size=40)
        assert best_lag(np.zeros(40), series, 6) == (-1.0, 0)
        assert best_lag(series[:11], series[:11], 6) == (-1.0, 0)
        assert best_lag(series[:13], series[:13], 6, min_overlap=14) == (-1.0, 0)


def test_the_speech_level_is_that_of_the_vowels() -> None:
    mel = np.full((3 * COLUMNS_PER_FRAME, MEL_BANDS), -3.0, np.float32)
    mel[COLUMNS_PER_FRAME : 2 * COLUMNS_PER_FRAME, 20] = 1.0  # a vowel in the second frame
    mel[2 * COLUMNS_PER_FRAME :, 70] = 1.0  # a hiss in the third
    level = speech_level(mel)
    assert level.shape == (3,)
    assert level[1] > level[0] == level[2]


class TestSyncPeak:
    @pytest.mark.parametrize("lag", [-8, -3, 0, 1, 5, 8])
    def test_finds_the_lag_and_its_sign(self, lag: int) -> None:
        random = np.random.default_rng(1)
        signal = np.convolve(random.normal(size=160), np.hanning(9), "same")
        level, opening = signal[20:120], signal[20 - lag : 120 - lag]  # the mouth does later what the sound did
        peak, at = sync_peak(level, 3 * opening + 7)
        assert at == lag
        assert peak > 0.9

    def test_noise_agrees_little_and_constants_not_at_all(self) -> None:
        random = np.random.default_rng(2)
        assert sync_peak(*random.normal(size=(2, 200)))[0] < 0.5
        assert sync_peak(random.normal(size=60), np.ones(60)) == (0.0, 0)
        assert sync_peak(np.zeros(3), np.zeros(3)) == (0.0, 0)

    def test_drifts_do_not_count(self) -> None:
        random = np.random.default_rng(3)
        first, second = random.normal(size=(2, 200)) + np.linspace(0, 5, 200)
        assert sync_peak(first, second)[0] < 0.5
