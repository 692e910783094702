"""Lips that the mesh calls closed though teeth show between them: its inner contour is moved to where the teeth end."""

from __future__ import annotations

import cv2
import numpy as np

from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER, OUTER_EYE_CORNERS

EYE_PX = 144.0
"""Distance of the outer eye corners at which is looked."""
CLOSED = 0.03
"""Gap between the lips, in eye distances, up to which the mesh says that they are closed."""
BRIGHT, WHITE = 1.0, 0.8
"""Least channel, over the skin's mean around the lips and over the largest channel, from which a pixel is a tooth's."""
LEAST = 35 * (EYE_PX / 72) ** 2
"""Pixels of teeth that lips part for. Of 14 portraits with closed lips and 421 frames of clips none has so many
(the most have 6 template pixels), one grey portrait whose teeth show has 50."""


def part_lips(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the landmarks (478, 3) of a face whose inner lips enclose the teeth that are seen, or the same ones.

    image: (H, W, 3) uint8. points: (478, 3) pixels.
    """
    right, left = points[list(OUTER_EYE_CORNERS), :2].astype(np.float64)
    apart = float((left - right) @ (left - right))
    if apart < 1:
        return points
    across = (left - right) * EYE_PX / apart
    turn = np.array([[across[0], across[1]], [-across[1], across[0]]])  # picture to an upright crop
    flat = points[:, :2].astype(np.float64) @ turn.T
    gap = np.linalg.norm(flat[LIPS_INNER[1:10]] - flat[LIPS_INNER[:10:-1]], axis=1).mean() / EYE_PX
    if gap >= CLOSED:
        return points
    corner = flat[LIPS_OUTER].min(0) - 12
    size = tuple(np.ceil(flat[LIPS_OUTER].max(0) + 12 - corner).astype(int).tolist())
    matrix = np.concatenate([turn, -corner[:, None]], axis=1)
    crop = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    teeth = _teeth(crop.astype(np.float32), flat[LIPS_OUTER] - corner)
    if teeth is None:
        return points
    inner = flat[LIPS_INNER] - corner
    for upper, lower in zip(range(1, 10), range(19, 10, -1), strict=True):
        column = int(np.clip(round((inner[upper, 0] + inner[lower, 0]) / 2), 0, size[0] - 1))
        rows = np.flatnonzero(teeth[:, max(0, column - 1) : column + 2].any(axis=1))
        if len(rows):
            inner[upper, 1] = min(inner[upper, 1], rows[0])
            inner[lower, 1] = max(inner[lower, 1], rows[-1] + 1)
    parted = points.copy()
    back = np.linalg.inv(turn)
    parted[LIPS_INNER, :2] = (inner + corner) @ back.T
    return parted


def _teeth(crop: np.ndarray, outer: np.ndarray) -> np.ndarray | None:
    """Return where teeth show between lips, (h, w) bool, None where next to none do. outer: (20, 2) their contour."""
    lips = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillPoly(lips, [np.rint(outer).astype(np.int32)], 1)
    around = cv2.dilate(lips, np.ones((13, 13), np.uint8)) - lips
    least, most = crop.min(-1), crop.max(-1)
    skin = float(crop[around > 0].mean())
    inside = cv2.erode(lips, np.ones((3, 3), np.uint8)) > 0
    teeth = ((least > BRIGHT * skin) & (least > WHITE * most) & inside).astype(np.uint8)
    row = cv2.morphologyEx(teeth, cv2.MORPH_CLOSE, np.ones((3, 9), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(row)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return labels == largest if stats[largest, cv2.CC_STAT_AREA] >= LEAST else None
