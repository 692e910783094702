"""How loud a log-mel column reads: against the sound around it, so that the recording's own level never shows."""

from __future__ import annotations

import numpy as np

DB_A_UNIT = 20.0
"""Feature values are dB over this."""
SILENT = -3.0
"""The feature value of silence, and of everything 60 dB under the peak."""
NO_SOUND_DB = -200.0
"""The level of what is no part of the recording."""
RISE_DB = 18.0
"""A column reads at most this much louder than it would at the loudest peak of what is heard with it. Before the first
word, and after minutes of silence, the running peak itself is the room's noise."""

LEAST_PEAK_DB = -32.0
"""Samples that a network hears as they are have at least this peak, as its training had."""


def against_loudest(columns: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Return columns (C, 80) that a network hears together, each relative to its own running peak, as they read then.

    peaks: (C,) those running peaks, in dB. Where they rise by at most `RISE_DB`, nothing changes.
    """
    return lowered(columns, np.max(peaks) - peaks)


def against_next(columns: np.ndarray, peaks: np.ndarray, ahead: int) -> np.ndarray:
    """Return the columns (C, 80) of a whole recording, each as it reads beside the `ahead` columns after it.

    peaks: (C,) as in `against_loudest`.
    """
    padded = np.concatenate([peaks, np.full(ahead, NO_SOUND_DB, peaks.dtype)])
    loudest = np.lib.stride_tricks.sliding_window_view(padded, ahead + 1).max(axis=1)  # (C,)
    return lowered(columns, loudest - peaks)


def lowered(columns: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """Return columns (C, 80) lowered by as much as rises (C,), in dB, exceed `RISE_DB`."""
    excess = np.maximum(rises - np.float32(RISE_DB), 0) / np.float32(DB_A_UNIT)
    return np.maximum(columns - excess[:, None], np.float32(SILENT))


def audible(samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Return samples (N,), louder where the highest of their running peaks (C,), in dB, is under `LEAST_PEAK_DB`."""
    return samples * np.float32(10 ** (max(0.0, LEAST_PEAK_DB - float(np.max(peaks))) / 20))
