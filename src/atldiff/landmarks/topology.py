"""The dense topology (MediaPipe Face Mesh, 468 points + 10 iris) and the subsets of it that the package uses.

Index lists are facts of the published Face Mesh topology. "Right" and "left" are the person's own.
"""

from __future__ import annotations

import numpy as np

MESH_POINTS = 468
POINTS = 478

OVAL = np.array([
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
])  # fmt: skip
"""Face contour, closed, clockwise in the picture from the top of the forehead."""

JAW = np.array([234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454])
"""Contour from ear to ear by the chin."""

LIPS_OUTER = np.array([61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146])
LIPS_INNER = np.array([78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95])
LIPS_MIDDLE = np.array([
    76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77,
    62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96,
])  # fmt: skip
LIPS = np.concatenate([LIPS_OUTER, LIPS_INNER, LIPS_MIDDLE])
"""All lip points of the mesh (80)."""

LIP_GAP_PAIRS = np.array([[82, 87], [13, 14], [312, 317]])
"""Upper and lower inner-lip points whose mean distance is the lip opening."""

EYE_RIGHT = np.array([33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7])
EYE_LEFT = np.array([362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382])
LID_PAIRS_RIGHT = np.array([[246, 7], [161, 163], [160, 144], [159, 145], [158, 153], [157, 154], [173, 155]])
"""Upper and lower lid points that meet when the eye closes (x differs little)."""
LID_PAIRS_LEFT = np.array([[466, 249], [388, 390], [387, 373], [386, 374], [385, 380], [384, 381], [398, 382]])
IRIS_RIGHT = np.arange(468, 473)
IRIS_LEFT = np.arange(473, 478)
BROW_RIGHT = np.array([70, 63, 105, 66, 107, 55, 65, 52, 53, 46])
BROW_LEFT = np.array([336, 296, 334, 293, 300, 276, 283, 282, 295, 285])

NOSE = np.array([48, 64, 98, 97, 2, 326, 327, 294, 278])
"""The nose's lower edge, from the right wing to the left one."""

OUTER_EYE_CORNERS = np.array([33, 263])

RIGID_WINDOW = np.array([33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327, 1])
"""Points that do not move with speech, in the order of the window template."""

RIGID = np.array([33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327, 1, 10, 67, 297])
"""Points of the pose fit: the window's and three of the forehead."""

SIXTY_EIGHT = np.array([
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw 0-16
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows 17-26
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose 27-35
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes 36-47
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips 48-59
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips 60-67
])  # fmt: skip
"""The papers' 68 points as dense indices."""

SIXTY_EIGHT_MOUTH = np.arange(48, 68)

_OVAL_BELOW = np.array([
    162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454,
    356, 389,
])  # fmt: skip
IP_LAP = np.concatenate([
    _OVAL_BELOW, BROW_RIGHT, BROW_LEFT, [168, 6, 197, 195, 5, 48, 115, 220, 45, 4, 275, 440, 344, 278], EYE_RIGHT,
    EYE_LEFT, LIPS_OUTER, LIPS_INNER,
])  # fmt: skip
"""IP_LAP's 131 points (Zhong et al., CVPR 2023) as dense indices: oval 0-24, brows, nose, eyes 25-90, lips 91-130."""


def to_sixty_eight(points: np.ndarray) -> np.ndarray:
    """Return the 68-point subset of dense points (..., 478 or 468, D) as (..., 68, D)."""
    if points.ndim < 2 or points.shape[-2] not in (MESH_POINTS, POINTS):
        raise ValueError(f"points: got shape {points.shape}, expected (..., 478, D) or (..., 468, D)")
    return points[..., SIXTY_EIGHT, :]


def lip_opening(points: np.ndarray) -> np.ndarray:
    """Return the mean inner-lip gap of points (..., K, D >= 2), in the points' own units, as (...)."""
    gap = points[..., LIP_GAP_PAIRS[:, 1], :] - points[..., LIP_GAP_PAIRS[:, 0], :]
    return np.linalg.norm(gap, axis=-1).mean(axis=-1)
