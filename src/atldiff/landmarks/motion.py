"""Head motion and smoothing over time, each giving a stream what it gives a file, bit for bit."""

from __future__ import annotations

import math

import numpy as np

from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.timebase import FPS

PIVOT = np.array([0.0, 1.0, 0.9])
"""Where the head turns, in canonical space: the base of the skull, at the mouth's height and behind the ears."""
RAMP_FRAMES = 1.5 * FPS
"""The motion grows from nothing over this time: a video starts on the photograph."""

_RMS = np.array([1.0, 0.7, 0.5, 0.008, 0.008])  # yaw, pitch, roll in degrees; shift x, y in canonical units
_TONES = 4
_LOWEST_HZ, _HIGHEST_HZ = 0.07, 0.45
_TILT = -0.7  # amplitude over frequency, as a power: slow drifts are wide, quick ones small
_STREAM = 2  # keeps these draws apart from those of the blinks of the same seed

# numpy's own sine may round differently with the array's length; libm's does not.
_sine = np.vectorize(math.sin, otypes=[np.float64])


def head_motion(moments: np.ndarray, gain: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a small slow drift of the head at given moments.

    moments: (T,) frame indices at 25 frames a second, fractions allowed. gain: 1 is about one degree of yaw (RMS).

    Returns:
        yaw, pitch and roll (T, 3) in degrees and shift (T, 2) in canonical units, float64, all zero and at rest at
        frame 0; every value depends on its own moment, the gain and the seed only.

    Raises:
        ValueError: `moments` is not one-dimensional or `gain` is negative.
    """
    moments = np.asarray(moments, np.float64)
    if moments.ndim != 1:
        raise ValueError(f"moments: got shape {moments.shape}, expected (T,) frame indices")
    if not 0 <= gain < math.inf:
        raise ValueError(f"gain: got {gain}, expected a number of at least 0")
    draws = np.random.default_rng([seed, _STREAM]).random((2, len(_RMS), _TONES))
    # One tone in each of four equal parts of the octaves: never in step with one another.
    octaves = (np.arange(_TONES) + draws[0]) / _TONES
    frequency = _LOWEST_HZ * (_HIGHEST_HZ / _LOWEST_HZ) ** octaves  # (5, 4)
    amplitude = frequency**_TILT
    amplitude *= (_RMS * math.sqrt(2.0))[:, None] / np.linalg.norm(amplitude, axis=1, keepdims=True)
    ramp = gain * ease(moments / RAMP_FRAMES)
    motion = np.zeros((len(moments), len(_RMS)))
    for axis in range(len(_RMS)):
        for tone in range(_TONES):
            turns = frequency[axis, tone] * moments / FPS + draws[1, axis, tone]
            motion[:, axis] += amplitude[axis, tone] * _sine(2 * math.pi * turns)
    motion *= ramp[:, None]
    return motion[:, :3], motion[:, 3:]


def pose_track(
    rotation: np.ndarray, scale: np.ndarray | float, translation: np.ndarray, euler_deg: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apply head motion to a portrait's pose: turns about the skull's base and shifts in the picture.

    rotation: (3, 3), scale: () pixels per unit, translation: (3,) pixels, as in `LandmarkTrack`.
    euler_deg: (T, 3) yaw, pitch and roll in degrees about the head's own axes. shift: (T, 2) right and down in
    canonical units.

    Returns:
        rotation (T, 3, 3), scale (T,), translation (T, 3), float32; the portrait's own where the motion is zero.
    """
    turn = rotation_from_euler(euler_deg[:, 0], euler_deg[:, 1], euler_deg[:, 2])  # (T, 3, 3)
    moved = PIVOT - turn @ PIVOT  # keeps the pivot where it is
    pixels = float(scale) * (moved @ np.asarray(rotation, np.float64).T)  # (T, 3)
    pixels[:, :2] += float(scale) * shift
    return (
        (np.asarray(rotation, np.float64) @ turn).astype(np.float32),
        np.full(len(turn), scale, np.float32),
        (np.asarray(translation, np.float64) + pixels).astype(np.float32),
    )


class GaussianSmoother:
    """Rows in, smoothed rows out once the rows after them are known; the first and last row reach beyond the ends.

    sigma_frames: 0 or more; 0 lets rows through as they are, at once.

    Raises:
        ValueError: `sigma_frames` is negative or not finite.
    """

    def __init__(self, sigma_frames: float) -> None:
        if not 0 <= sigma_frames < math.inf:
            raise ValueError(f"sigma_frames: got {sigma_frames}, expected a number of at least 0")
        self.lookahead = math.ceil(3 * sigma_frames)
        """Frames by which the output lags behind the input."""
        distances = [tap / (sigma_frames or 1.0) for tap in range(-self.lookahead, self.lookahead + 1)]
        bell = [math.exp(-0.5 * distance * distance) for distance in distances]
        self._weights = [weight / math.fsum(bell) for weight in bell]
        self._rows: np.ndarray | None = None
        self._width = 0

    def push(self, rows: np.ndarray) -> np.ndarray:
        """Take rows (F, D); return the rows (G, D) float32 whose look-ahead is complete."""
        self._width = rows.shape[1]
        if not len(rows):
            return np.zeros(rows.shape, np.float32)
        if self._rows is None:
            self._rows = np.repeat(rows[:1], self.lookahead, axis=0)
        self._rows = np.concatenate([self._rows, rows])
        ready = max(0, len(self._rows) - 2 * self.lookahead)
        smoothed = self._smooth(self._rows, ready)
        self._rows = self._rows[ready:]
        return smoothed

    def flush(self) -> np.ndarray:
        """End the stream; return the rows still missing (G, D) float32."""
        if self._rows is None or not self.lookahead:
            return np.zeros((0, self._width), np.float32)
        return self.push(np.repeat(self._rows[-1:], self.lookahead, axis=0))

    def _smooth(self, rows: np.ndarray, ready: int) -> np.ndarray:
        if not self.lookahead:
            return rows.astype(np.float32)
        # Tap after tap, element by element: sums do not depend on how many rows come at once.
        total = np.zeros((ready, *rows.shape[1:]))
        for tap, weight in enumerate(self._weights):
            total += weight * rows[tap : tap + ready].astype(np.float64)
        return total.astype(np.float32)


def ease(value: np.ndarray | float) -> np.ndarray:
    """Return the ramp from 0 to 1 over [0, 1] whose slope is zero at both ends."""
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3 - 2 * value)
