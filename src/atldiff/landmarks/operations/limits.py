"""What faces do not do: mouths, jaws, lids, eyes and heads are held back, softly.

Bounds are percentiles of 32 000 frames of 303 real clips, each clip counting alike: up to the 99th all stays as it is,
and nothing passes the 99.9th. A head is held back further, by what one picture can show.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from atldiff.landmarks.blink import EYE_CORNERS
from atldiff.landmarks.operations.head import turned_less
from atldiff.landmarks.operations.mouth import met, resting
from atldiff.landmarks.operations.regions import CHIN, jaw_motion
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.topology import IRIS_LEFT, IRIS_RIGHT, LID_PAIRS_LEFT, LID_PAIRS_RIGHT, lip_opening
from atldiff.types import LandmarkTrack


class Bound(NamedTuple):
    """What is left as it is up to `free`, and comes near to `most` and never passes it. In eye distances."""

    free: float
    most: float


LIP_OPENING = Bound(0.295, 0.400)
JAW_DROP, JAW_RISE = Bound(0.117, 0.180), Bound(0.048, 0.088)
"""Of the chin, from where it is at rest."""
EYE_OPENING = Bound(0.357, 0.414)
"""Lid gap over the eye's width; of eyes that are open wider in the portrait, that is the bound."""
LEAST_GAP = 0.02
"""Share of the portrait's lid gap that stays when lids meet."""
GAZE_ACROSS, GAZE_DOWN = Bound(0.051, 0.078), Bound(0.026, 0.038)
"""Of the irises, from where they are in the portrait."""


def held_back(values: np.ndarray, bound: Bound) -> np.ndarray:
    """Return values of 0 and more, those beyond what is free drawn in so that none passes the most."""
    room = bound.most - bound.free
    beyond = np.maximum(values - bound.free, 0)
    return np.where(beyond > 0, bound.free + room * np.tanh(beyond / room), values)


def limited(track: LandmarkTrack, portrait: np.ndarray | None = None) -> LandmarkTrack:
    """Return the track within what faces do, and its head within what one picture shows; the rest stays bit for bit.

    portrait: (3, 3) rotation of the photographed head, the first frame's when left out.
    """
    if not len(track):
        return track
    track = _eyes_back(_lids(_mouth(track)))
    return met(turned_less(track, portrait)[0])


def _mouth(track: LandmarkTrack) -> LandmarkTrack:
    rest = resting(track)
    away = track.displacements - rest
    drop = away[:, CHIN, 1].mean(axis=1, dtype=np.float64)
    to = np.where(drop > 0, held_back(drop, JAW_DROP), -held_back(-drop, JAW_RISE))
    less = np.divide(to, drop, out=np.ones_like(drop), where=to != drop)
    displacements = track.displacements + (less - 1).astype(np.float32)[:, None, None] * jaw_motion(away)
    # The gaps shrink towards those of the mouth at rest; being lengths, they do so by no less than linearly.
    at_rest, opening = (lip_opening(track.neutral + moved).astype(np.float64) for moved in (rest, displacements))
    to = np.maximum(held_back(opening, LIP_OPENING), np.minimum(at_rest, opening))
    less = np.divide(to - at_rest, opening - at_rest, out=np.ones_like(to), where=to != opening)
    shrunk = (1 - less).astype(np.float32)[:, None, None] * lower_face()[:, None]
    return replace(track, displacements=displacements - shrunk * (displacements - rest))


def _lids(track: LandmarkTrack) -> LandmarkTrack:
    moved = track.displacements.copy()
    for pairs, (first, second) in zip((LID_PAIRS_RIGHT, LID_PAIRS_LEFT), EYE_CORNERS, strict=True):
        upper, lower = pairs.T
        shapes = track.neutral + moved
        gaps = shapes[:, lower] - shapes[:, upper]  # (T, 7, 3)
        width = np.linalg.norm(shapes[:, first, :2] - shapes[:, second, :2], axis=-1)
        own = track.neutral[lower] - track.neutral[upper]
        own_width = np.linalg.norm(track.neutral[first, :2] - track.neutral[second, :2])
        opening = np.linalg.norm(gaps[:, 1:6, :2], axis=-1).mean(axis=1) / np.maximum(width, 1e-9)
        widest = max(0.0, float(np.linalg.norm(own[1:6, :2], axis=-1).mean() / own_width) - EYE_OPENING.free)
        to = held_back(opening, Bound(EYE_OPENING.free + widest, EYE_OPENING.most + widest))
        less = np.divide(to, opening, out=np.ones_like(to), where=to != opening).astype(np.float32)
        moved[:, upper] += (1 - less)[:, None, None] * gaps
        least = LEAST_GAP * np.maximum(own[:, 1], 0)
        crossed = np.maximum(least - less[:, None] * gaps[..., 1], 0) * (least > 0)
        moved[:, upper, 1] -= crossed
    return replace(track, displacements=moved)


def _eyes_back(track: LandmarkTrack) -> LandmarkTrack:
    moved = track.displacements.copy()
    for iris, corners in zip((IRIS_RIGHT, IRIS_LEFT), EYE_CORNERS, strict=True):
        off = moved[:, iris[0], :2] - moved[:, list(corners), :2].mean(axis=1)
        for axis, bound in enumerate((GAZE_ACROSS, GAZE_DOWN)):
            to = np.sign(off[:, axis]) * held_back(np.abs(off[:, axis]), bound)
            moved[:, iris, axis] += np.where(to == off[:, axis], 0, to - off[:, axis]).astype(np.float32)[:, None]
    return replace(track, displacements=moved)
