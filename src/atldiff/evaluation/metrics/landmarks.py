"""Measures of landmark tracks. Points are (T, K, 2) in pixels of the 256-pixel crop; NaN is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def landmark_distance(prediction: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Return LMD, the mean Euclidean distance of corresponding points over points and frames; lower is better.

    prediction, target: (T, K, D), in the unit of the result. Source: Chen et al., "Lip Movements Generation at a
    Glance" (2018), without its alignment: what is aligned is said by who calls.

    Raises:
        ValueError: no frames, other shapes, or NaN.
    """
    _check(prediction, target)
    return float(np.linalg.norm(prediction - target, axis=-1).mean())


def landmark_velocity_distance(prediction: NDArray[np.floating], target: NDArray[np.floating]) -> float | None:
    """Return LVD, the mean Euclidean distance of the points' changes from frame to frame; lower is better.

    prediction, target: (T, K, D). None for fewer than two frames. Source: Zhou et al., "MakeItTalk" (2020), D-V; the
    differences are over time.

    Raises:
        ValueError: no frames, other shapes, or NaN.
    """
    _check(prediction, target)
    return landmark_distance(np.diff(prediction, axis=0), np.diff(target, axis=0)) if len(prediction) > 1 else None


def jitter(points: NDArray[np.floating]) -> float | None:
    """Return the mean length of the points' second difference over time, in their unit a frame squared.

    points: (T, K, D). None for fewer than three frames. A real face has some, from its own motion and from the
    detector; trembling landmarks have more, a frozen picture has none.
    """
    _check(points, points)
    return float(np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1).mean()) if len(points) > 2 else None


def _check(prediction: NDArray, target: NDArray) -> None:
    if prediction.shape != target.shape or prediction.ndim != 3 or not prediction.size:
        raise ValueError(f"points: got shapes {prediction.shape} and {target.shape}, expected one (T, K, D), T > 0")
    if not (np.isfinite(prediction).all() and np.isfinite(target).all()):
        raise ValueError("points: got NaN or infinity, expected frames with a face only")
