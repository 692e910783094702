"""Squares cut from a picture, turned so that a face in them stands upright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Crop:
    """A square around a face.

    pixels: (n, n, 3) uint8, edges of the picture replicated. corner: (2,) where its first pixel lies in the picture.
    turn: (2, 2) rotation of its axes into the picture's. step: picture pixels a pixel of it.
    """

    pixels: np.ndarray
    corner: np.ndarray
    turn: np.ndarray
    step: float

    def from_picture(self, points: np.ndarray) -> np.ndarray:
        """Return points (K, 2) of the picture as points of the crop."""
        return (((points - self.corner) / self.step) @ self.turn).astype(points.dtype)

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Return points (K, 2) of the crop as points of the picture."""
        return (points @ self.turn.T).astype(points.dtype) * np.float64(self.step) + self.corner


def rotation_2d(roll_deg: float) -> np.ndarray:
    """Return the (2, 2) rotation that turns an upright face by an angle, clockwise as seen in the picture."""
    if not roll_deg:
        return np.eye(2)
    cos, sin = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    return np.array([[cos, -sin], [sin, cos]])


def cut(image: np.ndarray, centre: np.ndarray, side: float, pixels: int, roll_deg: float = 0.0) -> Crop:
    """Cut a square of `side` picture pixels around a point (2,), resampled to `pixels` a side.

    roll_deg: by how much a face is turned clockwise that is to stand upright in it.
    """
    import cv2

    step, turn = side / pixels, rotation_2d(roll_deg)
    corner = (centre - (turn @ np.full(2, side / 2)).astype(centre.dtype)).astype(np.float64)
    source, fetch = image, np.concatenate([turn * step, corner[:, None]], axis=1)
    if step > 2:  # a bilinear fetch skips pixels when shrinking: average first
        ratio = 1 / step
        source = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        fetch = np.concatenate([turn, corner[:, None] * ratio], axis=1)
    found = cv2.warpAffine(
        source,
        fetch,
        (pixels, pixels),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Crop(found, corner, turn, step)
