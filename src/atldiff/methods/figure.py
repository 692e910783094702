"""Who moves and what stays in a portrait: its control points' skull, and the person cut out of the picture."""

from __future__ import annotations

import logging

import cv2
import numpy as np

from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.person import person_mask
from atldiff.landmarks.topology import JAW, OVAL, RIGID
from atldiff.video.head import Head
from atldiff.video.matte import Matte
from atldiff.video.warp import PortraitWarp

logger = logging.getLogger(__name__)

MIN_COVERED = 0.9
"""Share of the face that the mask has to cover before it is believed."""


def _control(landmarks: np.ndarray) -> np.ndarray:
    """Return the control points that are one of these landmarks."""
    return np.flatnonzero((FACE_CONTROL.part == 0) & np.isin(FACE_CONTROL.first, landmarks))


HEAD = Head(_control(RIGID), top=int(_control(OVAL[:1])[0]), chin=int(_control(JAW[len(JAW) // 2 :][:1])[0]))


def stand_out(warp: PortraitWarp, face: np.ndarray) -> PortraitWarp:
    """Return a portrait whose background stays where it is, or itself where nobody can be told from a background.

    face: (N, 2) contour of the face in the picture's pixels.
    """
    if warp.alpha is not None and warp.alpha.min() < 255:
        return warp
    x0, y0, x1, y1 = warp.box
    mask = person_mask(warp.image, warp.field_low, warp.field_high)
    step = float((warp.field_high - warp.field_low).max()) / len(mask)
    first = (warp.field_low + warp.field_high - len(mask) * step) / 2  # the square's corner in the picture
    place = np.array([[1 / step, 0, (x0 - first[0]) / step], [0, 1 / step, (y0 - first[1]) / step]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mask: np.ndarray = cv2.warpAffine(  # pyright: ignore[reportAssignmentType]
        mask, place, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    corner = np.array([x0, y0])
    inner = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(inner, [np.round(face - corner).astype(np.int32)], 1)
    if not inner.any() or float(mask[inner > 0].mean()) < MIN_COVERED:
        logger.debug("portrait: the person cannot be told from the background, which bends with the head")
        return warp
    matte = Matte.cut_out(warp.image[y0:y1, x0:x1], mask, face - corner)
    return warp if matte.alpha.min() == 255 else warp.parted(matte)
