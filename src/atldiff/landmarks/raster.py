"""Landmarks drawn as maps: anti-aliased polygons and the soft masks made of them."""

from __future__ import annotations

import numpy as np

_SUBPIXEL_BITS = 4


def polygons(points: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Fill closed polygons with anti-aliased edges.

    points: (T, K, 2) pixels, in order around the polygon; they may lie outside the picture. size: its side, or width
    and height.

    Returns:
        (T, height, width) uint8, 0 outside to 255 inside.
    """
    import cv2

    fixed = _fixed_point(points, size)
    maps = np.zeros((len(points), *_shape(size)), np.uint8)
    for canvas, polygon in zip(maps, fixed, strict=True):
        cv2.fillPoly(canvas, [polygon], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return maps


def polylines(points: np.ndarray, size: int | tuple[int, int], width_px: int = 1) -> np.ndarray:
    """Draw open lines with anti-aliased edges.

    points: (T, K, 2) pixels, in order along the line; they may lie outside the picture. size: its side, or width and
    height.

    Returns:
        (T, height, width) uint8, 0 outside to 255 on the line.
    """
    import cv2

    fixed = _fixed_point(points, size)
    maps = np.zeros((len(points), *_shape(size)), np.uint8)
    for canvas, line in zip(maps, fixed, strict=True):
        cv2.polylines(canvas, [line], False, 255, width_px, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return maps


def dilated(maps: np.ndarray, reach_px: float, ramp_px: float) -> np.ndarray:
    """Grow filled maps (T, S, S) uint8 by `reach_px`, falling smoothly to zero over the outer `ramp_px`.

    Returns:
        (T, S, S) float32 in [0, 1].
    """
    import cv2

    grown = np.empty(maps.shape, np.float32)
    for out, canvas in zip(grown, maps, strict=True):
        outside = np.where(canvas >= 128, 0, 255).astype(np.uint8)
        if outside.all():  # nothing drawn inside the picture: the distance transform has no zero to measure from
            out[:] = 0
            continue
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # Squared distances are whole numbers; OpenCV's root of them differs in the last bit from call to call.
        distance = np.sqrt(np.rint(distance * distance))
        ramp = np.clip((reach_px - distance) / ramp_px, 0, 1)
        out[:] = ramp * ramp * (3 - 2 * ramp)
    return grown


def _fixed_point(points: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    longer = max(_shape(size))
    return np.ascontiguousarray(np.round(np.clip(points, -4 * longer, 5 * longer) * (1 << _SUBPIXEL_BITS)), np.int32)


def _shape(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a side, or of width and height."""
    return (size, size) if isinstance(size, int) else (size[1], size[0])
