from __future__ import annotations

import math

import numpy as np
import pytest

from atldiff.audio.features import FFT_SAMPLES, HIGH_HZ, LOW_HZ, MelStream, log_mel, mel_filters
from atldiff.timebase import HOP_SAMPLES, MEL_BANDS, SAMPLE_RATE

SECOND_COLUMNS = 100


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables, coloured like a voice; the loudest parts are near -14 dB re full scale."""
    random = np.random.default_rng(seed)
    count = int(seconds * SAMPLE_RATE)
    white = random.normal(size=count + 8)
    coloured = np.convolve(white, [1.0, 1.6, 1.9, 1.5, 0.9, 0.4, 0.2, 0.1], "same")[:count]
    syllables = 0.15 + np.clip(np.sin(2 * np.pi * 4 * np.arange(count) / SAMPLE_RATE), 0, 1)
    return (0.065 * coloured * syllables).astype(np.float32)


def band_edges() -> list[float]:
    """The 82 corner frequencies, a band at a time, from the HTK formula written with natural logarithms."""
    mel = lambda hz: 1127.0 * math.log1p(hz / 700.0)  # noqa: E731 - one formula
    low, high = mel(LOW_HZ), mel(HIGH_HZ)
    return [700.0 * math.expm1((low + (high - low) * i / (MEL_BANDS + 1)) / 1127.0) for i in range(MEL_BANDS + 2)]


@pytest.mark.parametrize("samples", [1, 119, 639, 640, 641, 5119, 5120, 5121, 16_000, 40_961])
def test_four_columns_a_frame(samples: int) -> None:
    mel, levels = log_mel(np.full(samples, 0.01, np.float32))
    assert mel.shape == (4 * math.ceil(samples / 640), MEL_BANDS)
    assert levels.shape == (len(mel), 2)
    assert mel.dtype == levels.dtype == np.float32
    assert np.isfinite(mel).all()
    assert np.isfinite(levels).all()


def test_any_packets_give_the_file_s_columns_bit_for_bit() -> None:
    random = np.random.default_rng(3)
    for seed, seconds in enumerate((0.3, 1.0, 2.37)):
        samples = speech_like(seconds, seed)
        stream = MelStream()
        whole, whole_levels = (
            np.concatenate(part) for part in zip(stream.push(samples), stream.flush(len(samples)), strict=True)
        )
        for largest in (50, 1_000, 9_000):
            stream, at, parts = MelStream(), 0, []
            while at < len(samples):
                size = int(random.integers(0, largest))
                parts.append(stream.push(samples[at : at + size]))
                at += size
            parts.append(stream.flush(len(samples)))
            mel, levels = (np.concatenate(part) for part in zip(*parts, strict=True))
            assert np.array_equal(mel, whole)
            assert np.array_equal(levels, whole_levels)


def test_columns_come_in_blocks_of_two_frames() -> None:
    stream = MelStream()
    counts = [len(stream.push(np.zeros(640, np.float32))[0]) for _ in range(40)]
    assert set(counts) == {0, 8}
    assert sum(counts) == 19 * 8  # the last block waits for the 120 samples after it


def test_a_later_sample_cannot_change_finished_columns() -> None:
    samples = speech_like(1.0)
    first = MelStream().push(samples[:10_480])[0]
    second = MelStream().push(np.concatenate([samples[:10_480], np.ones(5_000, np.float32)]))[0]
    assert len(first) == 64
    assert np.array_equal(first, second[: len(first)])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("gain_db", [-60, -20, 14])
def test_a_quiet_recording_reads_like_a_loud_one(seed: int, gain_db: int) -> None:
    samples = speech_like(3.0, seed)
    loud, quiet = log_mel(samples)[0], log_mel(samples * np.float32(10 ** (gain_db / 20)))[0]
    assert np.abs(loud - quiet).max() < 0.01  # from the first column on
    assert np.std(loud) > 0.3  # and what is compared does move


@pytest.mark.parametrize("quiet_s", [0.3, 2.0, 12.0])
def test_a_word_reads_the_same_first_and_after_any_pause(quiet_s: float) -> None:
    room = np.random.default_rng(4).normal(0, 1e-4, int(quiet_s * SAMPLE_RATE)).astype(np.float32)
    word, risen = speech_like(1.0), 15  # columns until the word's own peak is there
    columns = len(word) // HOP_SAMPLES
    first = log_mel(np.concatenate([room, word]))[0]
    again = log_mel(np.concatenate([word, room, word]))[0][-columns:]
    assert np.abs(first[-columns:] - again)[risen:].max() < 0.05
    assert first[-columns - 25 : -columns - 5].mean() < -1.5  # the room before it is not taken for a voice


def test_a_constant_is_no_loudness() -> None:
    samples = speech_like(2.0)
    quiet = samples * np.float32(0.03)
    moved = quiet + np.float32(0.02)  # louder than they are
    assert np.abs(log_mel(moved)[0] - log_mel(quiet)[0])[:, 15:].max() < 0.05  # it leaks into the lowest bands


def test_levels_are_decibels() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    for gain_db in (0.0, -20.0):
        levels = log_mel(tone * np.float32(10 ** (gain_db / 20)))[1][8:-8]
        assert np.abs(levels[:, 0] - (gain_db - 3.01)).max() < 0.1  # a sine's power is half its peak's
        assert np.abs(levels[:, 1] - levels[:, 0]).max() < 0.1  # the peak follows at once


def test_a_column_is_centred_on_its_own_samples() -> None:
    for column in (0, 17, 50, 99):
        samples = np.zeros(SAMPLE_RATE, np.float32)
        samples[HOP_SAMPLES * column + HOP_SAMPLES // 2] = 1.0
        assert log_mel(samples)[1][:, 0].argmax() == column


def test_filters_are_the_textbook_s_triangles() -> None:
    filters = mel_filters()
    edges = band_edges()
    wanted = np.zeros((MEL_BANDS, FFT_SAMPLES // 2 + 1))
    for band in range(MEL_BANDS):
        for index in range(wanted.shape[1]):
            hz = index * SAMPLE_RATE / FFT_SAMPLES
            wanted[band, index] = np.interp(hz, edges[band : band + 3], [0.0, 1.0, 0.0], left=0.0, right=0.0)
    assert filters.shape == wanted.shape
    assert np.abs(filters - wanted).max() < 2e-3  # 1127 is 2595 / ln 10 to four digits
    assert (filters.sum(axis=1) > 0).all()  # no band without a bin


@pytest.mark.parametrize("hz", [150, 300, 700, 1500, 3000, 5000, 7000])
def test_a_tone_peaks_in_its_band(hz: float) -> None:
    samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)
    mel = log_mel(samples.astype(np.float32))[0]
    centres = np.array(band_edges()[1:-1])
    expected = int(np.abs(np.log1p(centres / 700) - np.log1p(hz / 700)).argmin())
    peaks = mel[8:-8].argmax(axis=1)
    assert np.abs(peaks - expected).max() <= 1
    far = np.abs(np.arange(MEL_BANDS) - expected) > 12
    assert mel[8:-8, expected].min() - mel[8:-8][:, far].max() > 1.0  # 20 dB


def test_silence_is_minus_three() -> None:
    mel, levels = log_mel(np.zeros(30_000, np.float32))
    assert (mel == -3.0).all()
    assert (levels[:, 0] == -130.0).all()
    assert (levels[:, 1] == -100.0).all()


def test_values_stay_in_range() -> None:
    for gain in (1e-6, 1e-3, 1.0, 8.0):
        mel = log_mel(speech_like(1.0) * np.float32(gain))[0]
        assert mel.min() >= -3.0
        assert mel.max() <= 1.0


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.float32(1.0)])
def test_other_shapes_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"samples: got shape .*, expected \(N,\)"):
        log_mel(np.asarray(samples))
