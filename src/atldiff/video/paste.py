"""A whole-face window put back into the picture it was cut from."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from atldiff.video.window import outline

FEATHER_SHARE = 0.12
"""Share of the window's side, at its border, over which it fades into the picture."""


@lru_cache(maxsize=4)
def feather(side: int) -> np.ndarray:
    """Return weights (S, S) float32: one inside, falling smoothly to zero at the border."""
    steps = np.minimum(np.arange(side), np.arange(side)[::-1]) / (FEATHER_SHARE * side)
    ramp = np.clip(steps, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.minimum(ramp[None], ramp[:, None]).astype(np.float32)


def paste(picture: np.ndarray, window: np.ndarray, matrix: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """Return a picture (H, W, 3 or 4) uint8 with a window (S, S, 3), float32 levels 0 to 255, in its place.

    matrix: (2, 3) map of picture pixels to window pixels. alpha: (H, W) uint8 that takes the place of the picture's own
    in the window. The picture itself is left alone.
    """
    import cv2

    side = len(window)
    low, high = outline(matrix, side)
    height, width = picture.shape[:2]
    x0, y0 = (max(0, int(np.floor(value))) for value in low)
    x1, y1 = (min(most, int(np.ceil(value)) + 1) for most, value in zip((width, height), high, strict=True))
    frame = picture.copy()
    if x0 >= x1 or y0 >= y1:
        return frame
    place = matrix.copy()
    place[:, 2] += place[:, :2] @ np.array([x0, y0], np.float64)
    layers = np.concatenate([window, feather(side)[..., None]], axis=2).astype(np.float32)
    lifted = cv2.warpAffine(
        layers, place, (x1 - x0, y1 - y0), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    weight = np.clip(lifted[..., 3:], 0, 1)
    part = frame[y0:y1, x0:x1, :3]
    part[:] = np.clip(np.rint(part + weight * (lifted[..., :3] - part)), 0, 255).astype(np.uint8)
    if alpha is not None:
        own = frame[y0:y1, x0:x1, 3].astype(np.float32)
        frame[y0:y1, x0:x1, 3] = np.rint(own + weight[..., 0] * (alpha[y0:y1, x0:x1] - own)).astype(np.uint8)
    return frame
