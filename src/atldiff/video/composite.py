"""The renderer's window put back into the warped portrait at the portrait's own resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atldiff.video.window import outline


@dataclass(frozen=True, slots=True)
class WindowResult:
    """One frame of a renderer's window, float32 levels 0 to 255.

    change: (h, w, 3), what is added to the prior, (h, w, 3). cavity: (h, w) in [0, 1], the open mouth, where
    nothing of the warped picture is kept. matrix: (2, 3) map of picture pixels to window pixels.
    """

    change: np.ndarray
    prior: np.ndarray
    cavity: np.ndarray
    matrix: np.ndarray


def composite(canvas: np.ndarray, corner: tuple[int, int], window: WindowResult) -> None:
    """Blend a window into a canvas in place.

    canvas: (h, w, 3) uint8, a part of the warped portrait whose top left pixel is `corner` (x, y) of the picture.

    On lips and skin the window's change of its prior is added, so the portrait's own pores and hairs stay. In
    the cavity the window replaces the canvas: there the warp only stretched the lips.
    """
    import cv2

    height, width = window.change.shape[:2]
    first, last = outline(window.matrix, (width, height))
    low = np.floor(first).astype(int) - corner
    high = np.ceil(last).astype(int) + 1 - corner
    height, width = canvas.shape[:2]
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    x1, y1 = min(width, int(high[0])), min(height, int(high[1]))
    if x0 >= x1 or y0 >= y1:
        return
    place = window.matrix.copy()  # region pixels to window pixels
    place[:, 2] += place[:, :2] @ np.array([x0 + corner[0], y0 + corner[1]], np.float64)
    cavity = window.cavity[..., None]
    layers = np.concatenate([window.change + cavity * window.prior, cavity], axis=2)  # (S, S, 4)
    lifted = cv2.warpAffine(
        layers.astype(np.float32),
        place,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    part = canvas[y0:y1, x0:x1]
    keep = 1 - np.clip(lifted[..., 3:], 0, 1)
    part[:] = np.clip(np.rint(part * keep + lifted[..., :3]), 0, 255).astype(np.uint8)
