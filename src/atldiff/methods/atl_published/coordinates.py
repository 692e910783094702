"""The 68 landmarks of a second as the published landmark module takes and gives them."""

from __future__ import annotations

from typing import Literal

import numpy as np

TOKENS = 49
"""Feature tokens of a second: wav2vec 2.0's stride is 320 samples and its field 400."""
POINTS = 68
MOUTH = (*range(49, 68), 48)
"""The 20 mouth points, in the released order."""

CANONICAL_SCALE, CANONICAL_CENTRE = 0.45, (0.5, 0.35)
"""Canonical points times the scale plus the centre are about [0, 1]."""
WINDOW_SIDE, WINDOW_SCALE = 128, 2 / 255
"""The side of the released pipeline's picture, and its landmarks over their pixels there."""


def normalise(points: np.ndarray, coordinates: Literal["canonical", "window"], side: int = WINDOW_SIDE) -> np.ndarray:
    """Return points (..., 2) as the module takes them.

    coordinates: `canonical` points have the outer eye corners as their unit and centre; `window` points are pixels of
    the whole-face window of `side` pixels.
    """
    if coordinates == "window":
        return points * (WINDOW_SCALE * WINDOW_SIDE / side)
    return points * CANONICAL_SCALE + np.asarray(CANONICAL_CENTRE, points.dtype)


def denormalise(points: np.ndarray, coordinates: Literal["canonical", "window"], side: int = WINDOW_SIDE) -> np.ndarray:
    """Return the points (..., 2) that `normalise` was given."""
    if coordinates == "window":
        return points / (WINDOW_SCALE * WINDOW_SIDE / side)
    return (points - np.asarray(CANONICAL_CENTRE, points.dtype)) / CANONICAL_SCALE
