"""Filters over a whole track that take tremble out and lag by nothing: One-Euro, there and back, and Savitzky-Golay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from atldiff.landmarks.rotations import nearest_rotations
from atldiff.types import LandmarkTrack

MIN_CUTOFF_HZ, BETA, SPEED_CUTOFF_HZ = 1.5, 40.0, 3.0
"""What stands is filtered at the first; each eye distance a second that it moves adds the second to the cutoff; the
speed itself is filtered at the third."""
WINDOW, ORDER = 7, 2
MOST_WINDOW, MOST_ORDER = 51, 5


def one_euro(track: LandmarkTrack, min_cutoff_hz: float = MIN_CUTOFF_HZ, beta: float = BETA) -> LandmarkTrack:
    """Return the track, displacements and head, through One-Euro filters (Casiez, Roussel and Vogel, CHI 2012).

    The filter of that paper lags. Here each runs there and back over what has been filtered, at cutoffs that the speed
    in both directions gives: it has no lag, and the tremble is less by the square of its factor.
    min_cutoff_hz: above 0, lower is smoother where nothing moves. beta: 0 or more, in hertz for an eye distance a
    second, higher follows fast motion more closely.

    Raises:
        ValueError: a number that is out of range.
    """
    check_one_euro(min_cutoff_hz, beta)
    fps = float(track.fps)

    def filtered(values: np.ndarray) -> np.ndarray:
        if len(values) < 2:
            return values
        velocity = np.gradient(values, axis=0) * fps
        velocity = _there_and_back(velocity, np.full((len(values), 1), _share(SPEED_CUTOFF_HZ, fps)))
        cutoff = min_cutoff_hz + beta * np.linalg.norm(velocity, axis=-1, keepdims=True)
        return _there_and_back(values, _share(cutoff, fps))

    return _each(track, filtered)


def _share(cutoff_hz: np.ndarray | float, fps: float) -> np.ndarray:
    """Return the part of a new value that an exponential filter takes."""
    return 1 - np.exp(-2 * math.pi * np.asarray(cutoff_hz) / fps)


def _there_and_back(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return values (T, ...) filtered forwards and backwards, in both orders, so that time has no direction."""
    return (
        _swept(_swept(values, share)[::-1], share[::-1])[::-1] + _swept(_swept(values[::-1], share[::-1])[::-1], share)
    ) / 2


def _swept(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    out = np.empty(values.shape)
    state = out[0] = values[0]
    for index in range(1, len(values)):
        state = state + share[index] * (values[index] - state)
        out[index] = state
    return out


def savitzky_golay(track: LandmarkTrack, window: float = WINDOW, order: float = ORDER) -> LandmarkTrack:
    """Return the track, displacements and head, through a Savitzky-Golay filter: a polynomial's value at each frame.

    window: odd number of frames, 3 to 51, and no more than the track has: a shorter track is left as it is. order: of
    the polynomial, below the window, 0 to 5. At the ends the polynomial of the first and the last window goes on.

    Raises:
        ValueError: a number that is out of range.
    """
    check_savitzky_golay(window, order)
    if len(track) < window:
        return track
    half = int(window) // 2
    powers = np.arange(-half, half + 1)[:, None] ** np.arange(int(order) + 1)[None]
    smoother = powers.astype(np.float64) @ np.linalg.pinv(powers.astype(np.float64))  # (window, window)

    def filtered(values: np.ndarray) -> np.ndarray:
        rows = values.reshape(len(values), -1)
        out = np.zeros(rows.shape)
        inner = len(rows) - 2 * half
        for tap, weight in enumerate(smoother[half].tolist()):
            out[half : half + inner] += weight * rows[tap : tap + inner]
        out[:half] = np.einsum("ij,jd->id", smoother[:half], rows[: 2 * half + 1])
        out[half + inner :] = np.einsum("ij,jd->id", smoother[half + 1 :], rows[-2 * half - 1 :])
        return out.reshape(values.shape)

    return _each(track, filtered)


def _each(track: LandmarkTrack, filtered: Callable[[np.ndarray], np.ndarray]) -> LandmarkTrack:
    """Return a track whose displacements, rotation, place and size went through a filter of values (T, ..., D)."""
    if not len(track):
        return track
    unit = float(np.median(track.scale))
    place = np.concatenate([track.translation, track.scale[:, None]], axis=1).astype(np.float64) / unit
    place = filtered(place) * unit
    turned = filtered(track.rotation.reshape(-1, 9).astype(np.float64)).reshape(-1, 3, 3)
    return replace(
        track,
        displacements=filtered(track.displacements.astype(np.float64)).astype(np.float32),
        rotation=nearest_rotations(turned).astype(np.float32),
        translation=place[:, :3].astype(np.float32),
        scale=place[:, 3].astype(np.float32),
    )


def check_one_euro(min_cutoff_hz: float = MIN_CUTOFF_HZ, beta: float = BETA) -> None:
    """Raise ValueError unless a One-Euro filter can have these numbers."""
    if not 0 < min_cutoff_hz <= 1000:
        raise ValueError(f"smooth: got a cutoff of {min_cutoff_hz:g} Hz, expected more than 0, up to 1000")
    if not 0 <= beta <= 1e6:
        raise ValueError(f"smooth: got beta {beta:g}, expected 0 or more")


def check_savitzky_golay(window: float = WINDOW, order: float = ORDER) -> None:
    """Raise ValueError unless a Savitzky-Golay filter can have these numbers."""
    if window != window // 1 or not 3 <= window <= MOST_WINDOW or window % 2 == 0:
        raise ValueError(f"smooth: got a window of {window:g}, expected an odd number from 3 to {MOST_WINDOW}")
    if order != order // 1 or not 0 <= order <= min(MOST_ORDER, window - 1):
        raise ValueError(f"smooth: got order {order:g}, expected 0 to {min(MOST_ORDER, int(window) - 1)}")


FILTERS = {"one-euro": one_euro, "savgol": savitzky_golay}
CHECKS = {"one-euro": check_one_euro, "savgol": check_savitzky_golay}
