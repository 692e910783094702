"""What may spoil a video of a face: it lies on its side or head, its lips are covered, its eyes are closed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atldiff.landmarks.lips import lips_are_covered
from atldiff.landmarks.plausible import roll_deg
from atldiff.landmarks.search import LYING_DEG
from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT

CLOSED = 0.085
"""Gap of the lids over the eye's width below which both eyes are closed. Eyes that smile or squint, and narrow ones,
come down to 0.09; most open ones are near 0.3 (looked at in 6 000 frames of 60 people)."""

_EYES = ((LID_PAIRS_RIGHT[2:5], (33, 133)), (LID_PAIRS_LEFT[2:5], (263, 362)))


class Condition(NamedTuple):
    """What is the matter with a face, in two or three words, and as a sentence that says what to do."""

    note: str
    advice: str


def conditions(image: np.ndarray, points: np.ndarray) -> list[Condition]:
    """Return what may spoil a video of a face; image: (H, W, 3) uint8, points: (478, 3) pixels."""
    found = []
    roll = roll_deg(points)
    if abs(roll) > LYING_DEG:
        found.append(_lying(roll))
    if lips_are_covered(image, points):
        found.append(
            Condition(
                "mouth covered",
                "no lips are seen where the mouth should be (a mask, a veil, a hand?), and the video shows some all "
                "the same: take a picture with the mouth in sight",
            )
        )
    if eyes_are_closed(points):
        found.append(
            Condition("eyes closed", "the eyes are closed, and stay so in the video: take a picture with open eyes")
        )
    return found


def eyes_are_closed(points: np.ndarray) -> bool:
    """Return whether both eyes of a mesh (478, 2 or 3) are closed."""
    gaps = [
        np.linalg.norm(points[pairs[:, 0], :2] - points[pairs[:, 1], :2], axis=1).mean()
        / max(float(np.linalg.norm(points[corners[0], :2] - points[corners[1], :2])), 1e-6)
        for pairs, corners in _EYES
    ]
    return bool(max(gaps) < CLOSED)


def _lying(roll: float) -> Condition:
    quarters = round(roll / 90) * 90
    way = "" if abs(quarters) == 180 else " anticlockwise" if quarters > 0 else " clockwise"
    return Condition(
        f"turned by {abs(roll):.0f} degrees",
        f"the face is turned by {abs(roll):.0f} degrees, and is so in the video: turn the picture by "
        f"{abs(quarters)} degrees{way} for an upright one",
    )
