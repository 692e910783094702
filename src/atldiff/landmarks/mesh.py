"""The mesh of a face in a region of a picture, 468 points and 10 of the irises, by MediaPipe's network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.networks import network
from atldiff.landmarks.region import Region, around
from atldiff.landmarks.topology import OUTER_EYE_CORNERS

if TYPE_CHECKING:
    from atldiff.landmarks.boxes import Detection

SIDE = 192
"""Side in pixels of the square that the network sees."""
PRESENT = 0.5
"""Probability above which the region shows a face."""


def measure(picture: np.ndarray, region: Region, present: float = PRESENT) -> np.ndarray | None:
    """Return the landmarks (478, 3) float32 in pixels of the face in a region of a picture (H, W, 3) uint8, or None.

    present: the probability above which the region shows one.
    """
    presence, points = network("mesh")(region.fetch(picture, SIDE, replicate=True))
    if 1 / (1 + np.exp(-np.float64(presence))) <= present:
        return None
    shares = points / np.float32(SIDE)
    placed = np.empty(points.shape, np.float32)
    placed[:, :2] = region.to_picture(shares[:, :2])
    placed[:, 2] = shares[:, 2] * region.side
    return placed


def region_of(face: Detection) -> Region:
    """Return where the mesh of a detected face is measured."""
    return around(face.low, face.high, face.key_points[:2])


def next_region(points: np.ndarray) -> Region:
    """Return where the mesh (478, 3) of a face is measured in the frame after."""
    flat = points[:, :2].astype(np.float64)
    return around(flat.min(axis=0), flat.max(axis=0), flat[list(OUTER_EYE_CORNERS)])
