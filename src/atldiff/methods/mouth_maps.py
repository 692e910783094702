"""Where a renderer of the mouth's window may change the picture, and where its error is measured."""

from __future__ import annotations

import numpy as np

from atldiff.landmarks.raster import dilated

MASK_RAMP_PX = 6.0
MOUTH_REACH_PX = 5.0


def mask_and_mouth(
    lips: np.ndarray, inner: np.ndarray, face: np.ndarray, reach_px: float, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask and the mouth (N, S, S) float32 in [0, 1] of filled maps (N, S, S) uint8.

    lips, inner: polygons of outer and inner lips. face: of the jaw contour, closed from ear to ear. reach_px: how far
    the mask reaches beyond the lips, in template pixels, `scale` window pixels each. It is kept above the jaw line, so
    that nothing is painted on the neck or the background. The mouth is the inner lips grown by 5 template px.
    """
    grown = dilated(np.maximum(lips, inner), reach_px * scale, MASK_RAMP_PX * scale)
    inside = 1 - dilated(255 - face, 5.0 * scale, 4.0 * scale)
    mask = np.maximum(grown * inside, lips / np.float32(255))
    return mask, dilated(inner, (MOUTH_REACH_PX + 0.5) * scale, scale)
