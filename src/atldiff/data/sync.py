"""Sound against lips: correlation over lags, and the part of a sound that opens a mouth."""

from __future__ import annotations

import numpy as np

from atldiff.timebase import COLUMNS_PER_FRAME

MAX_LAG_FRAMES = 8
MIN_OVERLAP_FRAMES = 12
SPEECH_BANDS = slice(10, 50)
"""Mel bands of about 300 Hz to 3 kHz: they carry the vowels that open the mouth."""

_STILL = 1e-6
_ROUNDING = 1e-9


def speech_level(mel: np.ndarray) -> np.ndarray:
    """Return the mean log-mel level of the speech bands, a frame each (F,); mel: (4 F, 80)."""
    return mel[:, SPEECH_BANDS].mean(axis=1).reshape(-1, COLUMNS_PER_FRAME).mean(axis=1)


def best_lag(
    first: np.ndarray, second: np.ndarray, max_lag: int, min_overlap: int = MIN_OVERLAP_FRAMES
) -> tuple[float, int]:
    """Return the highest correlation of two (T,) series over lags of up to `max_lag` frames, and its lag.

    A positive lag means that `second` is later; of equal peaks the one nearest zero counts. (-1, 0) where fewer than
    `min_overlap` frames overlap or a series is still.
    """
    best, best_at = -1.0, 0
    for lag in sorted(range(-max_lag, max_lag + 1), key=abs):
        a = first[max(0, -lag) : len(first) - max(0, lag)]
        b = second[max(0, lag) : len(second) - max(0, -lag)]
        if len(a) < min_overlap or a.std() < _STILL or b.std() < _STILL:
            continue
        value = float(np.corrcoef(a, b)[0, 1])
        if value > best + _ROUNDING:
            best, best_at = value, lag
    return best, best_at


def sync_peak(level: np.ndarray, opening: np.ndarray) -> tuple[float, int]:
    """Return the peak correlation of two (T,) series and its lag in frames, positive when `opening` is later.

    Both are high-passed by subtracting a two-second mean, so slow drifts do not count.
    """
    from scipy.ndimage import gaussian_filter1d

    level, opening = (gaussian_filter1d(x, 1.0) - gaussian_filter1d(x, 12.0) for x in (level, opening))
    peak, lag = best_lag(level, opening, MAX_LAG_FRAMES)
    return max(peak, 0.0), lag
