"""The face at rest, and the part of it that speech moves."""

from __future__ import annotations

import numpy as np

from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import MESH_POINTS, lip_opening

CLOSED_SHARE = 0.15
"""Share of a clip's frames, those with the most closed lips, whose median is the neutral shape."""
_LOWER_FACE_FROM, _LOWER_FACE_FULL = 0.15, 0.5


def neutral_shape(shapes: np.ndarray) -> np.ndarray:
    """Return the shape (478, 3) at rest of pose-free shapes (T, 478, 3): the median of the most closed mouths."""
    closed = np.argsort(lip_opening(shapes))[: max(3, int(len(shapes) * CLOSED_SHARE))]
    return np.median(shapes[closed], axis=0)


def lower_face() -> np.ndarray:
    """Return (478,) weights of what speech moves: zero at and above the eyes, one from the nose's tip down."""
    height = np.clip((mean_shape()[:, 1] - _LOWER_FACE_FROM) / (_LOWER_FACE_FULL - _LOWER_FACE_FROM), 0, 1)
    weight = height * height * (3 - 2 * height)
    weight[MESH_POINTS:] = 0
    return weight.astype(np.float32)
