"""The most probable displacement of the dense topology for a few points that are known."""

from __future__ import annotations

import numpy as np


def ridge_solution(basis: np.ndarray, error: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the matrix (M, K * D) that gives the coefficients of the displacements of K points, flattened.

    basis: (M, K, D) displacements of one standard deviation each. error: expected of a coordinate of weight one, in the
    basis' units. weights: (K,) of the points, all one when left out. Weighted least squares under coefficients of unit
    variance.
    """
    count, points, axes = basis.shape
    weight = np.repeat(np.ones(points) if weights is None else weights, axes)  # (K * D,)
    rows = basis.reshape(count, -1) * weight
    return np.linalg.solve(rows @ rows.T + error**2 * np.eye(count), rows * weight)
