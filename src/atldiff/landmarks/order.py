"""Faces in the order in which one reads: rows from top to bottom, from left to right inside a row."""

from __future__ import annotations

import numpy as np

SAME_ROW = 0.35
"""Share of the lower face's height by which two faces of one row overlap at least."""
STEEPEST = 0.5
"""Slope of rows, down over across, up to which a tilt is believed."""


def reading_order(low: np.ndarray, high: np.ndarray) -> list[int]:
    """Return the indices of boxes in reading order; low, high: (F, 2) their corners (x, y).

    A row is what overlaps vertically once the picture's tilt is taken out: the slope from each face to its neighbour.
    """
    middle = (low + high) / 2
    tilt = _tilt(low, high) * middle[:, 0]
    top, bottom = low[:, 1] - tilt, high[:, 1] - tilt
    rows: list[list[int]] = []
    for face in np.argsort(top + bottom, kind="stable").tolist():
        if rows and _overlap(top[face], bottom[face], top[rows[-1]].mean(), bottom[rows[-1]].mean()) >= SAME_ROW:
            rows[-1].append(face)
        else:
            rows.append([face])
    return [face for row in rows for face in sorted(row, key=lambda index: middle[index, 0])]


def _tilt(low: np.ndarray, high: np.ndarray) -> float:
    """Return the median slope from a face to the nearest one on its right that it overlaps with; 0 without such."""
    middle, slopes = (low + high) / 2, []
    for face, (x, y) in enumerate(middle):
        across, down = middle[:, 0] - x, middle[:, 1] - y
        beside = [
            other
            for other in np.flatnonzero(across > (high - low)[face, 0] / 2)
            if _overlap(low[face, 1], high[face, 1], low[other, 1], high[other, 1]) >= SAME_ROW
        ]
        if beside:
            nearest = min(beside, key=lambda other: across[other])
            slopes.append(down[nearest] / across[nearest])
    slope = float(np.median(slopes)) if slopes else 0.0
    return slope if abs(slope) <= STEEPEST else 0.0


def _overlap(top: float, bottom: float, other_top: float, other_bottom: float) -> float:
    """Return by how much two vertical extents overlap, as a share of the shorter one."""
    shorter = max(min(bottom - top, other_bottom - other_top), 1e-6)
    return (min(bottom, other_bottom) - max(top, other_top)) / shorter
