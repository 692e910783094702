"""Black-and-white and toned photographs (sepia, cyanotype): what is painted into one takes its tone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FACE_PX = 24
"""Side of the face at which colours are compared: noise and the chroma errors of JPEG are averaged away."""

_KNOTS = 5
"""Knots of the curve of chroma over luma: toned prints have other tones in light and shadow."""

_MOST_RMS, _MOST_99 = 1.9, 5.0
"""How far chroma may be from such a curve, in levels: root mean square, and of 99 % of the pixels. The palest of 135
portraits and videos in colour reaches 2.2 and 5.9. Grey pictures have 0 even as JPEG; toned ones of 200 pixels a face
reach 1.8 and 4.1 at JPEG quality 30, of 100 pixels 1.8 and 4.8 at 50, of 60 pixels 1.5 and 4.0 at 90."""

_GREY = 1.0
"""Less chroma than this everywhere is none."""


@dataclass(frozen=True, slots=True)
class Tone:
    """Chroma as a function of luma: that of a picture with a single tone. blue, red: (256,) float32 levels."""

    blue: NDArray[np.float32]
    red: NDArray[np.float32]

    def of(self, picture: np.ndarray) -> NDArray[np.float32]:
        """Return pictures (..., 3), float32 levels 0 to 255, in this tone; exactly grey where it has no chroma."""
        luma = _luma(picture)
        if not self.blue.any() and not self.red.any():
            return np.repeat(luma[..., None], 3, axis=-1)
        levels = np.arange(256, dtype=np.float32)
        blue, red = (np.interp(luma, levels, chroma) for chroma in (self.blue, self.red))
        toned = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
        return toned.astype(np.float32)


def tone_of(image: NDArray[np.uint8], face: np.ndarray) -> Tone | None:
    """Return the tone of a black-and-white or toned photograph (H, W, 3), None for one in colour.

    face: (K, 2) landmarks in pixels. Only the face counts: what surrounds a photograph may be in colour.
    """
    low = np.maximum(np.floor(face.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(face.max(axis=0)).astype(int) + 1, image.shape[1::-1])
    if (high - low).min() < 2:
        return None
    part = image[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    factor = min(1.0, _FACE_PX / part.shape[1])
    side = (max(2, round(part.shape[1] * factor)), max(2, round(part.shape[0] * factor)))
    small = cv2.resize(part, side, interpolation=cv2.INTER_AREA)
    inside = np.zeros(side[::-1], np.uint8)
    outline = (face - low) * (np.array(side) / part.shape[1::-1])
    cv2.fillConvexPoly(inside, cv2.convexHull(outline.astype(np.int32)), 1)
    pixels = small[inside > 0]
    if len(pixels) < 16:
        return None
    luma = _luma(pixels)
    chroma = np.stack([(pixels[:, 2] - luma) / 1.772, (pixels[:, 0] - luma) / 1.402], axis=1)  # (N, 2)
    if np.abs(chroma).max() < _GREY:
        return Tone(*np.zeros((2, 256), np.float32))
    dark, bright = np.percentile(luma, (1, 99))
    knots = np.linspace(dark, bright, _KNOTS)  # beyond what the face shows, as at its ends
    hats = np.eye(_KNOTS)

    def over(levels: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(levels, knots, hat) for hat in hats], axis=1)

    curve = np.linalg.lstsq(over(luma), chroma, rcond=None)[0]  # (knots, 2)
    off = np.hypot(*(chroma - over(luma) @ curve).T)
    if np.sqrt((off**2).mean()) > _MOST_RMS or np.percentile(off, 99) > _MOST_99:
        return None
    return Tone(*(over(np.arange(256)) @ curve).T.astype(np.float32))


def _luma(picture: np.ndarray) -> np.ndarray:
    return 0.299 * picture[..., 0] + 0.587 * picture[..., 1] + 0.114 * picture[..., 2]
