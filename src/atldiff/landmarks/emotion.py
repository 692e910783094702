"""Emotions as offsets of landmarks, authored from the action units of FACS (Ekman & Friesen, 1978); none is learned.

An emotion is a sum of action units, an action unit a few smooth bumps on the mean face. Speech goes on as it is: the
points in which lips meet move in pairs, so an emotion neither opens nor crosses them; lids move as far as they are
open, so a blink closes them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from atldiff.emotions import EMOTIONS, EmotionSchedule, parse_emotion
from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT, NARROWEST_GAP
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import (
    EYE_LEFT,
    EYE_RIGHT,
    LID_PAIRS_LEFT,
    LID_PAIRS_RIGHT,
    LIPS_INNER,
    MESH_POINTS,
    POINTS,
)

if TYPE_CHECKING:
    from atldiff.emotions import Emotion
    from atldiff.types import LandmarkTrack


class Bump(NamedTuple):
    """A part of the face that moves: its middle and reach, and how far it moves, all in eye distances.

    Of both sides; x counts outwards. side: 1 for the person's left alone.
    """

    middle: tuple[float, float]
    reach: tuple[float, float]
    move: tuple[float, float, float]
    side: int = 0


ACTION_UNITS: dict[str, tuple[Bump, ...]] = {
    "AU1": (Bump((0.18, -0.22), (0.13, 0.14), (0, -0.080, 0)),),  # inner brow raiser
    "AU2": (Bump((0.52, -0.21), (0.16, 0.14), (0, -0.080, 0)),),  # outer brow raiser
    "AU4": (  # brow lowerer
        Bump((0.20, -0.21), (0.16, 0.13), (0, 0.050, 0)),
        Bump((0.18, -0.21), (0.13, 0.13), (-0.030, 0, 0)),
    ),
    "AU6": (Bump((0.44, 0.32), (0.17, 0.13), (0.006, -0.045, 0)),),  # cheek raiser
    "AU9": (  # nose wrinkler
        Bump((0.18, 0.40), (0.10, 0.13), (0.008, -0.045, 0)),
        Bump((0.26, 0.56), (0.11, 0.11), (0, -0.022, 0)),
    ),
    "AU10": (Bump((0.14, 0.67), (0.14, 0.07), (0, -0.040, 0)),),  # upper lip raiser
    "AU12": (  # lip corner puller
        Bump((0.30, 0.79), (0.14, 0.12), (0.060, -0.060, 0.030)),
        Bump((0.44, 0.52), (0.15, 0.15), (0.015, -0.025, 0)),
        Bump((0.0, 0.67), (0.20, 0.05), (0, 0.008, 0)),  # and lips get thinner
        Bump((0.0, 0.94), (0.20, 0.06), (0, -0.016, 0)),
    ),
    "AU12 left": (Bump((0.30, 0.79), (0.13, 0.11), (0.045, -0.050, 0.020), side=1),),
    "AU14 left": (Bump((0.36, 0.76), (0.10, 0.10), (0.025, 0, 0.015), side=1),),  # dimpler
    "AU15": (Bump((0.30, 0.84), (0.11, 0.12), (0.008, 0.060, 0.008)),),  # lip corner depressor
    "AU17": (Bump((0.0, 1.04), (0.18, 0.09), (0, -0.040, 0)),),  # chin raiser
    "AU20": (Bump((0.30, 0.82), (0.14, 0.12), (0.065, 0.015, 0.025)),),  # lip stretcher
    "AU23": (  # lip tightener
        Bump((0.0, 0.67), (0.20, 0.05), (0, 0.022, 0)),
        Bump((0.0, 0.94), (0.20, 0.06), (0, -0.026, 0)),
        Bump((0.29, 0.79), (0.10, 0.10), (-0.022, 0, 0)),
    ),
}
"""Unilateral ones are of the person's left."""

LIDS = {"AU5": (-0.034, 0.006), "AU6": (0.0, -0.014), "AU7": (0.010, -0.016)}
"""Action units of the eyes: how far the upper and the lower lid move down where the eye is widest."""

UNITS: dict[Emotion, dict[str, float]] = {
    "angry": {"AU4": 1.4, "AU5": 0.5, "AU7": 0.9, "AU23": 1.0, "AU9": 0.25},
    "fear": {"AU1": 1.0, "AU2": 0.6, "AU4": 0.5, "AU5": 1.0, "AU20": 0.8},
    "sad": {"AU1": 1.0, "AU4": 0.55, "AU15": 1.0, "AU17": 0.6, "AU7": 0.3},
    "contempt": {"AU12 left": 1.0, "AU14 left": 1.0, "AU7": 0.3},
    "happy": {"AU6": 1.0, "AU12": 1.2},
    "surprised": {"AU1": 1.0, "AU2": 1.0, "AU5": 0.9},
    "disgusted": {"AU9": 1.0, "AU10": 0.7, "AU4": 0.5, "AU15": 0.5, "AU17": 0.5, "AU7": 0.6},
    "neutral": {},
}
"""Emotions as EMFACS codes them, and how much of each action unit; jaws are left to speech (AU 26)."""

_UPPER, _LOWER = LIPS_INNER[1:10], LIPS_INNER[:10:-1]
_EYES = ((LID_PAIRS_RIGHT, FOLD_RIGHT), (LID_PAIRS_LEFT, FOLD_LEFT))
_FOLD_SHARE = 0.6
"""How far the skin above the upper lid goes with it."""


def with_emotion(track: LandmarkTrack, emotion: str | EmotionSchedule) -> LandmarkTrack:
    """Return the track with an emotion, such as `happy`, `happy:0.7` or `neutral happy@2.5 sad:0.5@6`.

    Intensity 0 and `neutral` change nothing; offsets are linear in the intensity. A track that was made with an emotion
    has it already.

    Raises:
        ValueError: as `parse_emotion`.
    """
    schedule = parse_emotion(emotion) if isinstance(emotion, str) else emotion
    intensities = schedule.intensities(np.arange(len(track)) / float(track.fps))
    moved = track.displacements + emotion_displacements(track.neutral, track.displacements, intensities)
    return replace(track, displacements=moved.astype(np.float32))


def emotion_displacements(neutral: np.ndarray, displacements: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """Return what emotions add to displacements (T, 478, 3) from a neutral shape (478, 3), float32, frame by frame.

    intensities: (T, 8) of `EMOTIONS`.
    """
    skin, lids = _fields()
    open_now = _lid_room(neutral, displacements)  # (T, 478)
    added = np.zeros(displacements.shape, np.float32)
    for number in range(len(EMOTIONS)):  # element by element: the same for any number of frames
        strength = intensities[:, number].astype(np.float32)
        if strength.any():
            added += strength[:, None, None] * skin[number]
            added += (strength[:, None] * open_now)[..., None] * lids[number]
    return added


def _lid_room(neutral: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    """Return how far lids and folds may move, (T, 478): less where an eye is narrow, not at all where it is closed."""
    mean, room = mean_shape(), np.zeros(displacements.shape[:2], np.float32)
    for pairs, fold in _EYES:
        upper, lower = pairs.T
        usual = float((mean[lower, 1] - mean[upper, 1]).mean())
        own = float((neutral[lower, 1] - neutral[upper, 1]).mean())
        if own < NARROWEST_GAP:
            continue
        gaps = neutral[lower, 1] - neutral[upper, 1] + displacements[:, lower, 1] - displacements[:, upper, 1]  # (T, 7)
        gap = gaps[:, 0].astype(np.float32)
        for column in gaps.T[1:]:
            gap = gap + column.astype(np.float32)
        share = np.minimum(np.maximum(gap / np.float32(len(upper) * own), 0), 1) * np.float32(min(own / usual, 1.0))
        room[:, np.concatenate([upper, lower, fold])] = share[:, None]
    return room


@lru_cache(maxsize=1)
def _fields() -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of each emotion at intensity 1, (8, 478, 3) float32: of the skin, and of lids and folds."""
    skin, lids = np.zeros((2, len(EMOTIONS), POINTS, 3))
    for number, emotion in enumerate(EMOTIONS):
        for unit, share in UNITS[emotion].items():
            for bump in ACTION_UNITS.get(unit, ()):
                skin[number] += share * _bump(bump)
            if unit in LIDS:
                lids[number] += share * _lids(*LIDS[unit])
    skin[:, MESH_POINTS:] = 0
    skin[:, np.concatenate([EYE_RIGHT, EYE_LEFT])] = 0
    skin[:, np.concatenate([FOLD_RIGHT, FOLD_LEFT])] *= 0.5
    together = (skin[:, _UPPER] + skin[:, _LOWER]) / 2
    skin[:, _UPPER] = skin[:, _LOWER] = together
    return skin.astype(np.float32), lids.astype(np.float32)


def _bump(bump: Bump) -> np.ndarray:
    x, y, _ = mean_shape().T
    sides = np.sign(x) if bump.side == 0 else np.where(x * bump.side > 0, bump.side, 0)
    outwards = np.abs(x) if bump.side == 0 else x * bump.side
    apart = ((outwards - bump.middle[0]) / bump.reach[0]) ** 2 + ((y - bump.middle[1]) / bump.reach[1]) ** 2
    height = np.exp(-apart / 2)
    across, down, back = bump.move
    return np.stack([across * sides * height, down * height, back * height], axis=1)


def _lids(upper_down: float, lower_down: float) -> np.ndarray:
    field, profile = np.zeros((POINTS, 3)), np.array([0.45, 0.8, 1.0, 1.0, 1.0, 0.8, 0.45])
    for pairs, fold in _EYES:
        upper, lower = pairs.T
        field[upper, 1], field[lower, 1] = upper_down * profile, lower_down * profile
        field[fold, 1] = _FOLD_SHARE * upper_down * profile
    return field
