from __future__ import annotations

import numpy as np
import pytest

from atldiff.evaluation.metrics import sync
from atldiff.timebase import SAMPLES_PER_FRAME


def lips(frames: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return 0.05 + 0.03 * np.convolve(random.normal(size=frames + 8), np.hanning(9), "valid")


class TestLipSync:
    @pytest.mark.parametrize("late", [-9, -3, 0, 1, 3, 15])
    def test_a_delay_is_found_exactly(self, late: int) -> None:
        motion = lips(140)
        reference, opening = motion[20:120], motion[20 - late : 120 - late]
        found = sync.lip_sync(opening, reference)
        assert found is not None
        assert found.lag_ms == -40 * late
        assert str(found.lag_ms) != "-0.0"
        assert (found.correlation == pytest.approx(1)) == (late == 0)

    def test_amplitude(self) -> None:
        motion = lips(100)
        found = sync.lip_sync(0.02 + 0.5 * motion, motion)
        assert found is not None
        assert (found.correlation, found.amplitude) == (pytest.approx(1), pytest.approx(0.5))

    def test_a_still_mouth_agrees_with_nothing(self) -> None:
        assert sync.lip_sync(np.full(100, 0.1), lips(100)) == sync.LipSync(0.0, None, pytest.approx(0, abs=1e-9))
        assert sync.lip_sync(lips(100), np.full(100, 0.1)) is None

    def test_other_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"opening: got \(5,\) and \(6,\)"):
            sync.lip_sync(np.zeros(5), np.zeros(6))


def voiced(opening: np.ndarray) -> np.ndarray:
    """A buzz whose loudness follows the opening."""
    times = np.arange(len(opening) * SAMPLES_PER_FRAME) / 16000
    buzz = sum(np.sin(2 * np.pi * 150 * k * times) / k for k in range(1, 20))
    envelope = np.repeat(np.clip(opening - opening.min(), 0, None), SAMPLES_PER_FRAME)
    return (0.2 * envelope / envelope.max() * buzz).astype(np.float32)


class TestAudioLipSync:
    @pytest.mark.parametrize("late", [-4, 0, 3])
    def test_the_shift_that_brings_them_together(self, late: int) -> None:
        motion = lips(160, seed=1)
        sound = voiced(motion[20:140])
        correlation, lag_ms = sync.audio_lip_sync(motion[20 - late : 140 - late], sound)
        assert lag_ms == pytest.approx(-40 * late, abs=40)  # loudness is heard a part of a frame late
        assert correlation > 0.6

    def test_silence_and_stillness(self) -> None:
        assert sync.audio_lip_sync(np.full(60, 0.1), voiced(lips(60))) == (0.0, None)
        assert sync.audio_lip_sync(lips(60), np.zeros(60 * SAMPLES_PER_FRAME, np.float32)) == (0.0, None)
        assert sync.audio_lip_sync(lips(60), np.zeros(0, np.float32)) == (0.0, None)


class TestSilentFrames:
    @pytest.mark.parametrize("loudness", [0.3, 1e-4])
    def test_away_from_sound(self, loudness: float) -> None:
        level = np.zeros(60)
        level[20:30] = loudness
        samples = np.repeat(level, SAMPLES_PER_FRAME) * np.sin(np.arange(60 * SAMPLES_PER_FRAME))
        silent = sync.silent_frames(samples.astype(np.float32), 60)
        assert silent[:17].all()
        assert not silent[17:33].any()
        assert silent[33:].all()

    def test_hiss_under_speech_is_silence(self) -> None:
        random = np.random.default_rng(0)
        samples = random.normal(0, 0.002, 60 * SAMPLES_PER_FRAME)
        samples[: 30 * SAMPLES_PER_FRAME] += random.normal(0, 0.3, 30 * SAMPLES_PER_FRAME)
        silent = sync.silent_frames(samples.astype(np.float32), 60)
        assert silent[33:].all()
        assert not silent[:33].any()

    def test_missing_sound_is_silence(self) -> None:
        samples = np.random.default_rng(0).normal(0, 0.3, 10 * SAMPLES_PER_FRAME).astype(np.float32)
        assert sync.silent_frames(samples, 30)[13:].all()
        assert sync.silent_frames(samples, 0).shape == (0,)
        assert not sync.silent_frames(samples[: 3 * SAMPLES_PER_FRAME], 3).any()
        assert sync.silent_frames(np.zeros(0, np.float32), 3).all()
