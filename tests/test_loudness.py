from __future__ import annotations

import numpy as np

from atldiff.loudness import (
    LEAST_PEAK_DB,
    NO_SOUND_DB,
    RISE_DB,
    SILENT,
    against_loudest,
    against_next,
    audible,
)


def test_columns_before_much_louder_ones_read_lower() -> None:
    columns = np.full((4, 80), -0.5, np.float32)
    peaks = np.array([-60.0, -60.0 + RISE_DB, -30.0, -20.0], np.float32)  # the loudest is 40 dB above the first
    heard = against_loudest(columns, peaks)
    assert np.allclose(heard[:, 0], [-0.5 - (40 - RISE_DB) / 20, -0.5 - (40 - 2 * RISE_DB) / 20, -0.5, -0.5], atol=1e-6)
    assert np.array_equal(heard, against_loudest(columns, peaks - 50))  # whatever the level


def test_nothing_reads_lower_than_silence_and_usual_speech_is_left_alone() -> None:
    columns = np.random.default_rng(0).uniform(SILENT, 0.5, (30, 80)).astype(np.float32)
    assert np.array_equal(against_loudest(columns, np.linspace(-30, -30 + RISE_DB, 30).astype(np.float32)), columns)
    padded = np.concatenate([np.full((4, 80), SILENT, np.float32), columns])
    peaks = np.concatenate([np.full(4, NO_SOUND_DB), np.full(30, -20.0)]).astype(np.float32)
    assert np.array_equal(against_loudest(padded, peaks), padded)
    assert (against_loudest(columns, np.where(np.arange(30) == 29, 0.0, -99.0).astype(np.float32))[:-1] == SILENT).all()


def test_a_recording_reads_beside_what_follows() -> None:
    columns, peaks = np.zeros((300, 80), np.float32), np.full(300, -50.0, np.float32)
    peaks[200:] = -20.0
    heard = against_next(columns, peaks, 100)
    assert np.allclose(heard[:100], 0.0)
    assert np.allclose(heard[100:200], -(30 - RISE_DB) / 20)
    assert np.allclose(heard[200:], 0.0)


def test_only_quiet_samples_are_made_louder() -> None:
    samples = np.random.default_rng(0).normal(0, 1, 100).astype(np.float32)
    for peak in (0.0, LEAST_PEAK_DB):
        assert np.array_equal(audible(samples, np.array([-70.0, peak])), samples)
    assert np.allclose(audible(samples, np.array([NO_SOUND_DB, LEAST_PEAK_DB - 20])), 10 * samples)
