"""Tracker noise taken out of a track that a video gave: still points stand still, fast ones stay fast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.rotations import nearest_rotations

if TYPE_CHECKING:
    from atldiff.types import LandmarkTrack

REACH_FRAMES, SIGMA_FRAMES = 4, 2.0
"""How many frames on either side are looked at, and the Gaussian over them."""
POSE_REACH_FRAMES, POSE_SIGMA_FRAMES = 5, 2.0
NOISE = 0.008
"""How far a point may move, in eye distances, and still be thought to stand: measured frame by frame it trembles by
0.002 to 0.004."""
TURN_NOISE, PLACE_NOISE = 0.02, 0.02
"""The same of the head: entries of its rotation, and its place and size in shares of the size."""


def steady(track: LandmarkTrack) -> LandmarkTrack:
    """Return a tracked face without its tremble: a bilateral filter over time (Tomasi and Manduchi 1998).

    A frame counts for another the less, the further away it is and the more the point has moved between them.
    """
    if len(track) < 3:
        return track
    turned = _bilateral(track.rotation.reshape(-1, 9), TURN_NOISE, POSE_REACH_FRAMES, POSE_SIGMA_FRAMES)
    unit = float(np.median(track.scale))
    place = np.concatenate([track.translation / unit, track.scale[:, None] / unit], 1)
    place = _bilateral(place, PLACE_NOISE, POSE_REACH_FRAMES, POSE_SIGMA_FRAMES) * unit
    return replace(
        track,
        displacements=steady_points(track.displacements),
        rotation=nearest_rotations(turned.reshape(-1, 3, 3)).astype(np.float32),
        translation=place[:, :3],
        scale=place[:, 3],
    )


def steady_points(displacements: np.ndarray) -> np.ndarray:
    """Return displacements (T, K, 3) float32 without their tremble, each point by itself."""
    return _bilateral(displacements, NOISE, REACH_FRAMES, SIGMA_FRAMES)


def _bilateral(values: np.ndarray, noise: float, reach: int, sigma: float) -> np.ndarray:
    """Filter values (T, ..., D) float32 over time; how far a row of D has moved decides what counts."""
    count = len(values)
    sums, weights = np.zeros(values.shape, np.float64), np.zeros((*values.shape[:-1], 1), np.float64)
    for offset in range(-reach, reach + 1):
        other = values[np.clip(np.arange(count) + offset, 0, count - 1)]
        moved = np.square((other - values) / noise).sum(-1, keepdims=True)
        weight = np.exp(-0.5 * (offset / sigma) ** 2 - 0.5 * moved)
        sums += weight * other
        weights += weight
    return (sums / weights).astype(np.float32)
