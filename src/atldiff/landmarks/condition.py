"""What may spoil a video of a face: it lies on its side or head, its lips are covered, its eyes are closed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atldiff.landmarks.plausible import roll_deg
from atldiff.landmarks.search import LYING_DEG


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
    return found


def _lying(roll: float) -> Condition:
    quarters = round(roll / 90) * 90
    way = "" if abs(quarters) == 180 else " anticlockwise" if quarters > 0 else " clockwise"
    return Condition(
        f"turned by {abs(roll):.0f} degrees",
        f"the face is turned by {abs(roll):.0f} degrees, and is so in the video: turn the picture by "
        f"{abs(quarters)} degrees{way} for an upright one",
    )
