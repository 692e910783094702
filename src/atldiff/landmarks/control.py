"""The control points of the warp: landmarks, and points between them along the lips and the jaw.

An inverse-distance field has a flat spot at each control point. Along a contour sampled as sparsely as the landmarks'
the spots show as beads; with points in between they merge into the contour's own smooth motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atldiff.landmarks.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    JAW,
    LIPS_INNER,
    LIPS_OUTER,
    OVAL,
    RIGID,
    RIGID_WINDOW,
)

LIP_POINTS = 3
"""Control points a stretch of lip contour, its first landmark included."""
JAW_POINTS = 2
CHEEKS = np.array([50, 280, 205, 425, 207, 427, 216, 436, 212, 432, 187, 411, 192, 416, 214, 434, 210, 430])
CHIN = np.array([200, 199, 175, 204, 424, 211, 431, 208, 428])
UNDER_NOSE = np.array([164, 2, 94, 165, 391, 322, 92])


@dataclass(frozen=True, slots=True)
class ControlPoints:
    """Points on segments between landmarks: (1 - part) * first + part * second, each (K,)."""

    first: np.ndarray
    second: np.ndarray
    part: np.ndarray

    def of(self, points: np.ndarray) -> np.ndarray:
        """Return the control points (..., K, D) of landmarks (..., 478, D)."""
        part = self.part[:, None]
        return points[..., self.first, :] * (1 - part) + points[..., self.second, :] * part

    def indices(self) -> np.ndarray:
        """Return the landmarks that are needed, sorted."""
        return np.unique(np.concatenate([self.first, self.second]))

    def within(self, indices: np.ndarray) -> ControlPoints:
        """Return the same control points for landmarks reduced to sorted `indices`."""
        return ControlPoints(np.searchsorted(indices, self.first), np.searchsorted(indices, self.second), self.part)


def _along(contour: np.ndarray, points: int, *, closed: bool) -> list[tuple[int, int, float]]:
    ends = np.roll(contour, -1) if closed else contour[1:]
    return [
        (int(a), int(b), step / points)
        for a, b in zip(contour, ends, strict=False)
        for step in range(points)
    ]  # fmt: skip


def _control(*landmarks: np.ndarray) -> ControlPoints:
    segments = _along(LIPS_OUTER, LIP_POINTS, closed=True) + _along(LIPS_INNER, LIP_POINTS, closed=True)
    segments += _along(JAW, JAW_POINTS, closed=False)
    contours = np.concatenate([LIPS_OUTER, LIPS_INNER, JAW])
    single = np.setdiff1d(np.concatenate(landmarks), contours)
    segments += [(int(i), int(i), 0.0) for i in single] + [(int(JAW[-1]), int(JAW[-1]), 0.0)]
    first, second, part = zip(*segments, strict=True)
    return ControlPoints(np.array(first), np.array(second), np.array(part, np.float32))


FACE_CONTROL = _control(
    OVAL, EYE_RIGHT, EYE_LEFT, RIGID, BROW_RIGHT[:5], BROW_LEFT[:5], CHEEKS, CHIN, UNDER_NOSE,
    np.array([247, 30, 29, 27, 28, 56, 190, 467, 260, 259, 257, 258, 286, 414]),  # folds above the lids
)  # fmt: skip
"""What moves a whole portrait."""

MOUTH_CONTROL = _control(RIGID_WINDOW, CHEEKS, CHIN, UNDER_NOSE)
"""The part of it that decides the warp inside a window around the mouth."""
