"""Rotations of a head as matrices: made orthogonal again, and turned part of the way from one to another."""

from __future__ import annotations

import numpy as np


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """Return the rotations (..., 3, 3) float64 next to matrices (..., 3, 3), in least squares; reflections excluded."""
    left, _, right = np.linalg.svd(np.asarray(matrices, np.float64))
    left[..., 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    return left @ right


def turned_part_way(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3, 3) float64 along the shortest turn from `before` to `after` (T, 3, 3).

    share: (T,) how much of the turn is done, 0 to 1. Both are made orthogonal.
    """
    start, end = _quaternions(nearest_rotations(before)), _quaternions(nearest_rotations(after))
    end = end * np.where((start * end).sum(-1, keepdims=True) < 0, -1.0, 1.0)  # both signs are the same rotation
    away, along = (np.linalg.norm(each, axis=-1) for each in (end - start, end + start))
    angle = 2 * np.arctan2(away, along)[:, None] / np.pi  # in half turns, as NumPy's sinc takes them
    rest, share = 1 - share[:, None], share[:, None]
    mixed = rest * np.sinc(rest * angle) * start + share * np.sinc(share * angle) * end
    return _matrices(mixed / np.sinc(angle))


def _quaternions(rotations: np.ndarray) -> np.ndarray:
    """Return unit quaternions (T, 4), the scalar last, of rotations (T, 3, 3)."""
    # Each row of q q^T is q times one of its entries; that with the largest entry is the exact one (Markley 2008).
    r = rotations
    products = np.empty((len(r), 4, 4))
    trace = np.trace(r, axis1=1, axis2=2)
    for i in range(3):
        products[:, i, i] = 1 + 2 * r[:, i, i] - trace
        j, k = (i + 1) % 3, (i + 2) % 3
        products[:, i, j] = products[:, j, i] = r[:, i, j] + r[:, j, i]
        products[:, i, 3] = products[:, 3, i] = r[:, k, j] - r[:, j, k]
    products[:, 3, 3] = 1 + trace
    largest = np.argmax(np.diagonal(products, axis1=1, axis2=2), axis=1)
    rows = products[np.arange(len(r)), largest]
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3, 3) of quaternions (T, 4) of a length near one."""
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
