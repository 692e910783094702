"""Where the landmarks of a filmed face would be, had it said something else at that moment."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.geometry import from_canonical, to_canonical, to_canonical_in_parts
from atldiff.landmarks.motion import ease
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.steady import steady
from atldiff.landmarks.topology import MESH_POINTS
from atldiff.methods.generators import FRONTAL_PX
from atldiff.methods.speech import TrackStream
from atldiff.timebase import FPS, SAMPLE_RATE
from atldiff.types import LandmarkTrack, Portrait

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.dubbing.tracking import TrackedFace
    from atldiff.methods.generators import Speaker
    from atldiff.types import Controls
    from atldiff.workers import Workers

NOSE_BASE, LIP = 0.53, 0.68
"""Heights in the mean face between which the new motion sets in: at the nose's base and above there is none."""
BLOCK, MARGIN = 64, 8
"""Frames whose landmarks are steadied at once, and those around them that are looked at."""
SILENCE = np.zeros(SAMPLE_RATE, np.float32)
"""What is heard after the end of a recording: the mouth closes."""
MOST_HELD = 8 * FPS
"""Frames of the generated motion that are held."""


def mouth_share() -> np.ndarray:
    """Return (478,) float32: how much of a point's motion is the new speech's; 0 at the nose's base and above."""
    share = ease((mean_shape()[:, 1] - NOSE_BASE) / (LIP - NOSE_BASE))
    share[MESH_POINTS:] = 0
    return share.astype(np.float32)


class SpokenShapes:
    """Shapes of a face that speaks a recording, by the second; times may only go on."""

    def __init__(
        self, speaker: Speaker, samples: np.ndarray, neutral: np.ndarray, controls: Controls, motion: Path | None,
        workers: Workers,
    ) -> None:  # fmt: skip
        """Open a stream. samples: (N,) at 16 kHz. neutral: (478, 3) canonical, lips closed."""
        frontal = Portrait(np.zeros((16, 16, 3), np.uint8), (FRONTAL_PX * (neutral + 2)).astype(np.float32))
        self._stream = TrackStream(
            speaker, frontal, replace(controls, still=True, blink_rate_hz=0), None, motion, warn=False
        )
        self._samples, self._workers = samples, workers
        self._heard, self._first, self._ended = 0, 0, False
        self._shapes: deque[np.ndarray] = deque(maxlen=MOST_HELD)
        self.neutral = neutral

    def at(self, time_s: float) -> np.ndarray:
        """Return the shape (478, 3) at a time; after the recording has ended, that of silence."""
        place = max(0.0, time_s * FPS)
        low = int(place)
        while not self._ended and self._first + len(self._shapes) <= low + 1:
            self._more()
        last = self._first + len(self._shapes) - 1
        first, second = (self._shapes[min(max(each, self._first), last) - self._first] for each in (low, low + 1))
        share = np.float32(place - low)
        return (1 - share) * first + share * second

    def _more(self) -> None:
        if self._heard < len(self._samples):
            part = self._samples[self._heard : self._heard + SAMPLE_RATE]
            self._heard += len(part)
            track = self._workers.alone(self._stream.push, part)
        else:
            track, self._ended = self._workers.alone(self._stream.flush), True
        for displacement in track.displacements:
            if len(self._shapes) == MOST_HELD:
                self._first += 1
            self._shapes.append(track.neutral + displacement)


class FilmedPoints:
    """Landmarks of the frames of a tracked video without their tremble, in any order."""

    def __init__(self, tracked: TrackedFace, rate: Fraction) -> None:
        self._tracked, self._rate = tracked, rate
        self._start = self._stop = 0
        self._points = np.zeros((0, 0, 3), np.float32)

    def of(self, index: int) -> np.ndarray | None:
        """Return the landmarks (478, 3) of a frame in pixels, None where there are none."""
        if not self._tracked.known[index]:
            return None
        if not self._start <= index < self._stop:
            self._read(index)
        return self._points[index - self._start]

    def _read(self, index: int) -> None:
        """Steady the block of a frame, as far as there are landmarks without a gap."""
        known = self._tracked.known
        block = index // BLOCK * BLOCK
        low, high = max(0, block - MARGIN), min(len(known), block + BLOCK + MARGIN)
        before, after = np.flatnonzero(~known[low:index]), np.flatnonzero(~known[index:high])
        low = low + int(before[-1]) + 1 if before.size else low
        high = index + int(after[0]) if after.size else high
        points = self._tracked.points.read(low, high)
        shape, rotation, scale, translation = to_canonical_in_parts(points, mean_shape())
        neutral = self._tracked.neutral
        track = LandmarkTrack(
            neutral, shape - neutral, rotation.astype(np.float32), translation.astype(np.float32),
            scale.astype(np.float32), Fraction(FPS), (1, 1),
        )  # fmt: skip
        first, last = max(low, block), min(high, block + BLOCK)
        self._points = steady(track).points()[first - low : last - low]
        self._start, self._stop = first, last


def target_points(points: np.ndarray, spoken: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return landmarks (478, 3) whose mouth and jaw are those of a shape (478, 3), in the pose that the face has.

    share: (478,) of `mouth_share`.
    """
    shape, rotation, scale, translation = to_canonical(points.astype(np.float64), mean_shape())
    moved = shape + share[:, None] * (spoken - shape)
    target = from_canonical(moved, rotation, scale, translation)
    return np.where(share[:, None] > 0, target, points).astype(np.float32)
