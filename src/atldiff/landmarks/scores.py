"""How well predicted lip motion agrees with the true one: what training watches and the evaluation reports."""

from __future__ import annotations

import numpy as np

from atldiff.landmarks.topology import LIP_GAP_PAIRS, LIPS

STILL_OPENING = 1e-5
"""A lip opening whose standard deviation is below this, in outer-eye-corner distances, does not move."""


def lip_scores(predicted: np.ndarray, held: np.ndarray, wanted: np.ndarray) -> dict[str, float] | None:
    """Return the scores of predicted displacements, or None where the true mouth stays still.

    predicted: (T, K, 3) canonical units. held: (T, K, 3), the true displacements as far as the generator's basis holds
    them. wanted: (T, K, 3), the true displacements.

    Returns:
        opening_correlation: of the predicted lip opening with the held one, in [-1, 1], 0 for a prediction at rest.
        amplitude: the ratio of their deviations. lip_error: the mean distance of the 80 lip points from the true ones,
        over that of the resting shape.
    """
    opening, truth = _gap(predicted), _gap(held)
    if truth.std() < STILL_OPENING:
        return None
    resting = opening.std() < STILL_OPENING  # a prediction that does not move agrees with nothing
    miss = np.linalg.norm(predicted[:, LIPS] - wanted[:, LIPS], axis=-1).mean()
    return {
        "opening_correlation": 0.0 if resting else float(np.corrcoef(opening, truth)[0, 1]),
        "amplitude": float(opening.std() / max(truth.std(), 1e-6)),
        "lip_error": float(miss / np.linalg.norm(wanted[:, LIPS], axis=-1).mean()),
    }


def _gap(displacements: np.ndarray) -> np.ndarray:
    lower, upper = displacements[:, LIP_GAP_PAIRS[:, 1], 1], displacements[:, LIP_GAP_PAIRS[:, 0], 1]
    return (lower - upper).mean(axis=1)
