"""The mouth at rest: closing the lips of a portrait that smiles or speaks, and lips that meet but never cross."""

from __future__ import annotations

import numpy as np

from atldiff.landmarks.topology import LIPS_INNER, lip_opening

OPEN = 0.035
"""Lip opening, in outer-eye distances, from which a portrait's mouth counts as open; closed lips measure about 0.02."""
REST = 0.0
RIDGE = 0.02
MAX_COEFFICIENT = 3.0

_UPPER = LIPS_INNER[1:10]
_LOWER = LIPS_INNER[:10:-1]
"""Inner-lip points that meet, upper with lower, from the right corner to the left one."""


def closing_coefficients(neutral: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the coefficients (M,) float32 that close the lips of a shape; zero when they are closed already.

    neutral: (478, 3) canonical. basis: (M, 478, 3) displacements of one standard deviation each. Of all displacements
    that bring the inner lips together, the most probable one: the ridge solution for the gaps along the lips.
    """
    if float(lip_opening(neutral)) < OPEN:
        return np.zeros(len(basis), np.float32)
    gaps = neutral[_LOWER, 1] - neutral[_UPPER, 1] - REST  # (9,)
    slopes = (basis[:, _LOWER, 1] - basis[:, _UPPER, 1]).T  # (9, M)
    gram = slopes @ slopes.T + RIDGE**2 * np.eye(len(gaps))
    solution = -slopes.T @ np.linalg.solve(gram, np.maximum(gaps, 0))
    return np.clip(solution, -MAX_COEFFICIENT, MAX_COEFFICIENT).astype(np.float32)


def meet_lips(neutral: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    """Return displacements (T, 478, 3) whose inner lips touch where they would have crossed."""
    shapes = neutral[None, :, 1] + displacements[..., 1]  # (T, 478) vertical
    crossing = np.minimum(shapes[:, _LOWER] - shapes[:, _UPPER], 0) / 2  # (T, 9), negative where crossed
    met = displacements.copy()
    met[:, _UPPER, 1] += crossing
    met[:, _LOWER, 1] -= crossing
    return met
