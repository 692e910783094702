"""What landmark completion sees of a face and what it completes: points, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.fit import ridge_solution
from atldiff.landmarks.topology import BROW_LEFT, BROW_RIGHT, EYE_LEFT, EYE_RIGHT, IP_LAP, SIXTY_EIGHT

if TYPE_CHECKING:
    from atldiff.config import CompletionConfig

COMPLETED = np.concatenate([np.arange(4, 13), np.arange(48, 68)])
"""Of the 68 points the 29 that are completed: lower jaw 4-12, mouth 48-67. DiffTalk's split; open in the paper."""
SEEN_68 = np.concatenate([np.arange(0, 4), np.arange(13, 48)])
"""The 39 visible ones."""
COMPLETED_131 = np.concatenate([np.arange(4, 21), np.arange(91, 131)])
"""Of IP_LAP's 131 points the 57 that are completed: jaw 4-20, lips 91-130."""
SEEN_131 = np.concatenate([np.arange(0, 4), np.arange(21, 91)])
"""The 74 visible ones."""
SEEN_DENSE = np.concatenate([
    EYE_RIGHT, EYE_LEFT, BROW_RIGHT, BROW_LEFT, [168, 10, 67, 297, 109, 338, 54, 284, 21, 251, 162, 389],
])  # fmt: skip
"""Of the dense topology: eyes, brows, forehead, bridge of the nose: nothing that a generator moves, and nothing by
which a video of other words would say what its mouth does."""

SEEN_UNIT, SEEN_LIMIT = 0.02, 6.0
"""Displacements of visible points are counted in this, outer-eye distances, and cut at this many of it."""
TURN_UNIT_DEG = 5.0
CLOSE_RIDGE = 0.003
"""Error expected of a completed coordinate, in outer-eye distances: how far the fit trusts points over the basis."""
FILMED, MADE_UP, MISSING = range(3)
"""What the landmarks that a generator sees may be: filmed, made up by the motion model, or missing."""


def seen_indices(config: CompletionConfig) -> np.ndarray:
    """Return the dense indices (V,) of the landmarks that a generator sees."""
    return {"dense": SEEN_DENSE, "sixty-eight": SIXTY_EIGHT[SEEN_68], "ip-lap": IP_LAP[SEEN_131]}[config.points]


def completed_indices(config: CompletionConfig) -> np.ndarray:
    """Return the dense indices (P,) of the points that a generator completes, the jaw's first; none of the basis."""
    none = np.zeros(0, np.int64)
    completed = {"dense": none, "sixty-eight": SIXTY_EIGHT[COMPLETED], "ip-lap": IP_LAP[COMPLETED_131]}
    return completed[config.points]


def jaw_count(config: CompletionConfig) -> int:
    """Return how many of the completed points are the jaw's; the rest are the mouth's."""
    return {"dense": 0, "sixty-eight": 9, "ip-lap": 17}[config.points]


def seen_tokens(displacements: np.ndarray, turned_deg: np.ndarray) -> np.ndarray:
    """Return what a generator sees of frames, (..., V * 3 + 3) float32, about unit variance.

    displacements: (..., V, 3) canonical, of the visible landmarks from the neutral shape. turned_deg: (..., 3) yaw,
    pitch and roll of the head against the first frame.
    """
    moved = displacements.astype(np.float32, copy=False) / np.float32(SEEN_UNIT)
    turned = turned_deg.astype(np.float32, copy=False) / np.float32(TURN_UNIT_DEG)
    tokens = np.concatenate([moved.reshape(*moved.shape[:-2], -1), turned], axis=-1)
    return np.clip(tokens, -SEEN_LIMIT, SEEN_LIMIT)


def closest(moves: np.ndarray, config: CompletionConfig) -> np.ndarray:
    """Return the matrix (M, P * 2) that gives the coefficients of completed points' moves; not for the dense topology.

    moves: (M, 478, 3) what a coefficient of one moves.
    """
    return ridge_solution(moves[:, completed_indices(config), :2].astype(np.float64), CLOSE_RIDGE)
