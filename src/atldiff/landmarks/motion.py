"""A head's pose and smoothing over time, each giving a stream what it gives a file, bit for bit."""

from __future__ import annotations

import math

import numpy as np

from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.timebase import FPS

PIVOT = np.array([0.0, 1.0, 0.9])
"""Where the head turns, in canonical space: the base of the skull, at the mouth's height and behind the ears."""
MOST_TURNED_DEG = np.array([14.0, 12.0, 25.0])
"""Yaw, pitch and roll that a head comes near to on a portrait, and never passes: of one picture no more of the other
side can be shown. Half of it is carried over as it is."""
MOST_AWAY_DEG, LEAST_AWAY_DEG = 22.0, 5.0
"""Yaw that a portrait whose head is already turned comes near to on that side; but it may always turn a little more."""
RAMP_FRAMES = 1.5 * FPS
"""The motion grows from nothing over this time: a video starts on the photograph."""

# numpy's own may round differently with the array's length; libm's does not.
_tanh = np.vectorize(math.tanh, otypes=[np.float64])


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


def limited_turn(turned: np.ndarray, portrait: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return turns (T, 3), in degrees from a portrait's pose, no wider than one picture shows; and where they are less.

    turned: yaw, pitch and roll about the head's own axes. portrait: (3, 3) rotation of the head that is to turn.

    Returns:
        the turns, which half way to the limit are as they are, and (T,) whether one of the three was changed.
    """
    most = np.tile(MOST_TURNED_DEG, (len(turned), 1))
    yaw = float(euler_degrees(np.asarray(portrait, np.float64))[0])
    away = min(MOST_TURNED_DEG[0], max(LEAST_AWAY_DEG, MOST_AWAY_DEG - abs(yaw)))
    most[turned[:, 0] * yaw > 0, 0] = away
    return softly_limited(turned, most), np.asarray((np.abs(turned) > most / 2).any(axis=1))


def softly_limited(values: np.ndarray, most: np.ndarray | float) -> np.ndarray:
    """Return values that come near to `most`, on either side, and never pass it; up to half of it they stay."""
    free = np.asarray(most) / 2
    beyond = np.maximum(np.abs(values) - free, 0)
    return np.where(beyond > 0, np.sign(values) * (free + free * _tanh(beyond / free)), values)


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
