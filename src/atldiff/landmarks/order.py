"""Faces in the order in which one reads: rows from top to bottom, from left to right inside a row."""

from __future__ import annotations

import numpy as np

SAME_ROW = 0.35
"""Share of the lower face's height by which neighbours in a row overlap vertically at least."""
NEIGHBOUR_WIDTHS = 4.0
"""Distance of neighbours, centre to centre, in widths of a face; further apart, rows may tilt into one another."""
TILT_LINKS = 3
"""Pairs of neighbours from which on their median slope is taken for a tilt of the picture."""


def reading_order(low: np.ndarray, high: np.ndarray) -> list[int]:
    """Return the indices of boxes in reading order; low, high: (F, 2) their corners (x, y).

    A row is a chain of neighbours that overlap vertically, so it may tilt; chains at one height are one row.
    """
    middle = (low + high) / 2
    links = _neighbours(low, high)
    chains = _chains(len(middle), links)
    slopes = [(middle[right, 1] - middle[left, 1]) / (middle[right, 0] - middle[left, 0]) for left, right in links]
    tilt = (float(np.median(slopes)) if len(slopes) >= TILT_LINKS else 0.0) * middle[:, 0]
    top, bottom = low[:, 1] - tilt, high[:, 1] - tilt
    rows: list[list[int]] = []
    for chain in sorted(chains, key=lambda faces: float((top + bottom)[faces].mean())):
        extent = top[chain].mean(), bottom[chain].mean()
        if rows and _overlap(*extent, top[rows[-1]].mean(), bottom[rows[-1]].mean()) >= SAME_ROW:
            rows[-1] += chain
        else:
            rows.append(chain)
    return [face for row in rows for face in sorted(row, key=lambda index: middle[index, 0])]


def _neighbours(low: np.ndarray, high: np.ndarray) -> list[tuple[int, int]]:
    """Return each face that has a neighbour on its right, the nearest that it overlaps with, and that one."""
    middle, width = (low + high) / 2, (high - low)[:, 0]
    links = []
    for face, x in enumerate(middle[:, 0]):
        across = middle[:, 0] - x
        near = np.flatnonzero((across > width[face] / 2) & (across <= NEIGHBOUR_WIDTHS * width[face]))
        extent = low[face, 1], high[face, 1]
        beside = [int(other) for other in near if _overlap(*extent, low[other, 1], high[other, 1]) >= SAME_ROW]
        if beside:
            links.append((face, min(beside, key=lambda other: across[other])))
    return links


def _chains(count: int, links: list[tuple[int, int]]) -> list[list[int]]:
    """Return the faces 0 to count - 1 in groups, each of those that links connect."""
    group = list(range(count))
    for first, second in links:
        old, new = group[second], group[first]
        group = [new if each == old else each for each in group]
    return [[face for face in range(count) if group[face] == each] for each in sorted(set(group))]


def _overlap(top: float, bottom: float, other_top: float, other_bottom: float) -> float:
    """Return by how much two vertical extents overlap, as a share of the shorter one."""
    shorter = max(min(bottom - top, other_bottom - other_top), 1e-6)
    return (min(bottom, other_bottom) - max(top, other_top)) / shorter
