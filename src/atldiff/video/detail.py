"""How much fine detail a picture has: what tells sharp frames from blurred ones."""

from __future__ import annotations

import numpy as np


def sharpness(image: np.ndarray) -> float:
    """Return the share of detail that is a pixel or two wide, in [0, 1]: blur and enlargement lower it; (H, W, 3)."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1.0, 4.0))
    return float((grey - fine).std() / max(1e-6, (fine - coarse).std() + (grey - fine).std()))
