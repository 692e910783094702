"""A picture with its faces marked, numbered and measured, readable at any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDES = (800, 1600)
"""Longer side in pixels that a smaller picture is enlarged to, and that a larger one is reduced to."""
TEXT_PX = (18, 44)
"""Least and greatest height of a number."""
CHOSEN, OTHER, INK = (120, 255, 120), (255, 255, 255), (0, 0, 0)
_FONT, _FONT_PX = cv2.FONT_HERSHEY_SIMPLEX, 22  # height of its capitals at scale 1


def draw_faces(
    image: np.ndarray,
    boxes: Sequence[np.ndarray],
    labels: Sequence[tuple[str, str]],
    chosen: Sequence[bool],
    points: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Return a picture (H, W, 3) uint8, enlarged or reduced, with a frame and a label above and below each face.

    boxes: each (4, 2) corners in pixels, around a face. labels: what is written above it, large, and below it, small.
    chosen: which are green; the others are white. points: of some faces (K, 2 or 3) in pixels, drawn as dots.
    """
    canvas, scale = _resized(image)
    placed = []
    for box, (above, below), is_chosen in zip(boxes, labels, chosen, strict=True):
        corners = box * scale
        side = float(np.ptp(corners, axis=0).max())
        text_px = float(np.clip(0.2 * side, *TEXT_PX))
        line = max(2, round(text_px / 12))
        colour = CHOSEN if is_chosen else OTHER
        outline = [np.rint(corners).astype(np.int32)]
        cv2.polylines(canvas, outline, True, INK, line + 2, cv2.LINE_AA)
        cv2.polylines(canvas, outline, True, colour, line, cv2.LINE_AA)
        (left, top), (_, bottom) = corners.min(axis=0), corners.max(axis=0)
        placed.append((above, (left, top), text_px, colour, True))
        placed.append((below, (left, bottom), 0.6 * text_px, colour, False))
    for x, y in (scale * each[:2] for face in points for each in face):
        centre = (round(float(x)), round(float(y)))
        cv2.circle(canvas, centre, 3, INK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, centre, 2, CHOSEN, cv2.FILLED, cv2.LINE_AA)
    for text, place, text_px, colour, is_above in placed:  # over all frames: a neighbour's must not cross a number
        _write(canvas, text, place, text_px, colour, above=is_above)
    return canvas


def _resized(image: np.ndarray) -> tuple[np.ndarray, float]:
    height, width = image.shape[:2]
    longer = max(height, width)
    scale = float(np.clip(longer, *SIDES)) / longer
    if scale == 1:
        return image.copy(), scale
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), scale


def _write(
    canvas: np.ndarray,
    text: str,
    place: tuple[float, float],
    text_px: float,
    colour: tuple[int, int, int],
    *,
    above: bool,
) -> None:
    """Write a text on a plate whose lower left corner is at a place, or the upper left one; inside the picture."""
    scale, line, pad = text_px / _FONT_PX, max(1, round(text_px / 9)), round(0.35 * text_px)
    (width, high), _ = cv2.getTextSize(text, _FONT, scale, line)
    wide, tall = width + 2 * pad, high + 2 * pad
    x = int(np.clip(round(place[0]), 0, max(0, canvas.shape[1] - wide)))
    y = int(np.clip(round(place[1] - tall if above else place[1]), 0, max(0, canvas.shape[0] - tall)))
    cv2.rectangle(canvas, (x, y), (x + wide - 1, y + tall - 1), colour, cv2.FILLED)
    cv2.putText(canvas, text, (x + pad, y + pad + high), _FONT, scale, INK, line, cv2.LINE_AA)
