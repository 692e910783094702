"""Head, brows, eyes and lids of a tracked face as a few numbers a frame: what the motion model is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atldiff.landmarks.blink import EYE_CORNERS, eye_opening
from atldiff.landmarks.geometry import euler_degrees
from atldiff.landmarks.motion import PIVOT, GaussianSmoother
from atldiff.landmarks.topology import BROW_LEFT, BROW_RIGHT
from atldiff.loudness import SILENT
from atldiff.timebase import COLUMNS_PER_FRAME, MEL_BANDS

CODES = 6
"""Yaw, pitch and roll in degrees, shift right and down in canonical units, brows raised in canonical units."""
POSE, SHIFT, BROWS = slice(0, 3), slice(3, 5), 5
KNOT_FRAMES = 2
"""Frames from one step of the model to the next."""
SOUND_LAG_FRAMES = 4
"""A step hears the sound up to this many frames before its own: so a frame needs none that is later than itself."""
BANDS = 10
"""Numbers that a step hears: the levels of so many groups of log-mel bands."""
SIGMA_FRAMES = 1.5
"""Gaussian over time that takes the tracker's tremble out of what is learned."""
LEAST_DEG = 0.2
"""Added to each angle's deviation: a head that hardly moves is mostly tremble, and is not blown up."""
LEAST_BROW = 0.002

_IRISES = (468, 473)
_BROWS = np.concatenate([BROW_RIGHT, BROW_LEFT])


class FaceCodes(NamedTuple):
    """A face over time. codes: (T, 6), see `CODES`, from their mean. opening: (T,) of the eyes, about 0.3.

    gaze: (T, 2) place of the irises between the corners of their eyes, in canonical units, right and down.
    """

    codes: np.ndarray
    opening: np.ndarray
    gaze: np.ndarray


def face_codes(
    shapes: np.ndarray, rotation: np.ndarray, scale: np.ndarray, translation: np.ndarray, *, smooth: bool = True
) -> FaceCodes:
    """Return what a tracked face does apart from speech.

    shapes: (T, 478, 3) canonical. rotation (T, 3, 3), scale (T,) and translation (T, 3): as in `LandmarkTrack`.
    smooth: off for poses that are smooth already.
    """
    unit = float(np.median(scale))
    pivots = (scale[:, None] * (rotation @ PIVOT) + translation)[:, :2] / unit
    raised = -shapes[:, _BROWS, 1].mean(axis=1)
    codes = np.concatenate([euler_degrees(rotation.astype(np.float64)), pivots, raised[:, None]], axis=1)
    if smooth:
        codes = smoothed(codes)
    gaze = [shapes[:, iris, :2] - shapes[:, list(corners), :2].mean(axis=1)
            for iris, corners in zip(_IRISES, EYE_CORNERS, strict=True)]  # fmt: skip
    return FaceCodes(codes - codes.mean(axis=0), eye_opening(shapes), np.mean(gaze, axis=0))


def smoothed(rows: np.ndarray) -> np.ndarray:
    """Return rows (T, D), from their mean, without the tracker's tremble."""
    smoother = GaussianSmoother(SIGMA_FRAMES)
    centred = rows - rows.mean(axis=0)
    return np.concatenate([smoother.push(centred), smoother.flush()]).astype(np.float64)


def amplitudes(codes: np.ndarray) -> tuple[float, float]:
    """Return how lively a head (geometric mean of its angles' deviations, in degrees) and its brows are."""
    deviation = codes.std(axis=0)
    return float(np.exp(np.log(deviation[POSE] + LEAST_DEG).mean())), float(deviation[BROWS] + LEAST_BROW)


def heard_bands(columns: np.ndarray) -> np.ndarray:
    """Return what a step hears (BANDS,) float32 of the 8 log-mel columns (8, 80) of its two frames; silence is -1."""
    groups = columns.reshape(len(columns), BANDS, MEL_BANDS // BANDS).mean(axis=(0, 2))
    return ((groups - np.float32(SILENT)) / np.float32(-SILENT) * 2 - 1).astype(np.float32)


def heard_steps(columns: np.ndarray, steps: int, start: int = 0) -> np.ndarray:
    """Return what the steps of a clip hear (steps, BANDS), the first one at frame `start`; columns: (C, 80)."""
    block = KNOT_FRAMES * COLUMNS_PER_FRAME
    heard = np.full((steps, BANDS), -1, np.float32)
    for step in range(steps):
        stop = (start + KNOT_FRAMES * step - SOUND_LAG_FRAMES + 1) * COLUMNS_PER_FRAME
        if block <= stop <= len(columns):
            heard[step] = heard_bands(columns[stop - block : stop])
    return heard
