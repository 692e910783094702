"""Whether a mesh lies on its face the right way up: a detector's own key points against it.

A face detector knows upright faces. Shown one that stands on its head it finds another, upright one in it, chin for
forehead and brows for a mouth, and the mesh follows. But it believes in that one less than in the true one, once the
picture is turned. So a mesh is looked at again in crops turned by its own roll, and where the detector hesitates there,
in crops turned further.

Arrays in, verdicts out; the detector is a function, `Look`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atldiff.landmarks.crop import cut, rotation_2d
from atldiff.landmarks.topology import MESH_POINTS, OUTER_EYE_CORNERS

Look = Callable[[np.ndarray], "list[tuple[float, np.ndarray]]"]
"""A detector: score in [0, 1] and six key points (6, 2) in pixels of the faces of a picture (n, n, 3) uint8. Key
points: right eye, left eye, tip of the nose, mouth, right ear, left ear."""

# Measured on 160 people, 15 portraits, and copies of them that were made darker, blurred, smaller, wider or narrower,
# each of them upright and turned by 150 to 235 degrees; and on upright faces with masks and veils drawn over mouth and
# nose, which often look more like a face when they stand on their heads: a forehead is a chin then, and hair a beard.
SURE_SCORE = 0.88
"""Score at the mesh's own turn that settles it. Wrong meshes come to 0.83 where key points agree."""
AGREE = 0.2
"""Mean distance of key points and mesh, in outer-eye distances, up to which they agree. Right: 0.04, at most 0.18."""
CERTAIN = 0.84
"""Mean score that convinces: of a turned face where the mesh is wrong (19 of 20), never of a masked one on its head."""
LEAST, ASTRAY = 0.7, 0.16
"""Mean score of another turn, and distance of the mesh from key points at its own, that together convince as well."""
CLEARLY = 0.05
"""By how much another turn's mean score is better where the mesh is wrong: by 0.1 at least. Right: it is worse."""
LOST = 0.3
"""Distance from which the mesh is on another face, or askew, where the detector sees one."""

TURNS_DEG = (0.0, 180.0, 90.0, 270.0)
REACHES = (2.0, 1.6, 2.6)
"""Sides of the crops that are looked at, in sides of the mesh's bounding square."""
LOOK_PX = 256

_KEY_POINTS = ((33, 133), (362, 263), (1, 1), (13, 14), (234, 234), (454, 454))
"""Where the mesh has a detector's key points: each the middle of two landmarks."""


def roll_deg(points: np.ndarray) -> float:
    """Return by how much a mesh (478, 2 or 3) is turned clockwise in the picture, -180 to 180 degrees."""
    x, y = points[OUTER_EYE_CORNERS[1], :2] - points[OUTER_EYE_CORNERS[0], :2]
    return float(np.degrees(np.arctan2(y, x)))


def bounding_square(points: np.ndarray, roll: float) -> tuple[np.ndarray, float]:
    """Return centre (2,) and side in pixels of the square around a mesh (478, 2 or 3), turned by `roll` degrees."""
    turn = rotation_2d(roll).astype(points.dtype)
    upright = points[:MESH_POINTS, :2] @ turn
    low, high = upright.min(axis=0), upright.max(axis=0)
    return turn @ ((low + high) / 2), float((high - low).max())


def disagreement(points: np.ndarray, key_points: np.ndarray) -> float:
    """Return the mean distance of a mesh (478, 2 or 3) from key points (6, 2), in outer-eye distances."""
    first, second = np.transpose(_KEY_POINTS)
    own = (points[first, :2] + points[second, :2]) / 2
    eyes = max(float(np.linalg.norm(np.diff(points[OUTER_EYE_CORNERS, :2], axis=0))), 1e-6)
    return float(np.linalg.norm(own - key_points, axis=1).mean()) / eyes


def judge(image: np.ndarray, points: np.ndarray, look: Look) -> tuple[float, float | None]:
    """Return how certain it is that a mesh (478, 3) lies right, and the roll of the face where it does not.

    The certainty is a score of 0 to 1: `CERTAIN` convinces. The roll is None, or degrees clockwise. One look where the
    mesh lies right and the picture is clear, else a dozen.
    """
    own = roll_deg(points)
    first = _sight(image, points, look, own, REACHES[0])
    if first.score >= SURE_SCORE and first.apart <= AGREE:
        return first.score, None
    turns = [[_sight(image, points, look, own + turn, reach) for reach in REACHES] for turn in TURNS_DEG]
    scores = [float(np.mean([sight.score for sight in sights])) for sights in turns]
    apart = min(sight.apart for sight in turns[0])
    best = int(np.argmax(scores))
    if scores[best] < scores[0] + CLEARLY or scores[best] < (LEAST if apart > ASTRAY else CERTAIN):
        best = 0
    if best or (apart > LOST and scores[0] >= LEAST):
        return 0.0, max(turns[best], key=lambda sight: sight.score).roll
    return scores[0], None


@dataclass(frozen=True, slots=True)
class _Sight:
    """What the detector sees of a face: score, distance of its key points from the mesh, and their roll in degrees."""

    score: float = 0.0
    apart: float = np.inf
    roll: float = 0.0


def _sight(image: np.ndarray, points: np.ndarray, look: Look, roll: float, reach: float) -> _Sight:
    """Look at the face of a mesh in a crop that is turned by `roll`, `reach` times as large as the mesh."""
    centre, side = bounding_square(points, roll)
    crop = cut(image, centre, reach * side, LOOK_PX, roll)
    seen = _Sight()
    for score, key_points in look(crop.pixels):
        places = crop.to_picture(key_points)
        own = np.linalg.norm(places.mean(axis=0) - centre) < side / 2  # and no neighbour's face
        if own and score > seen.score:
            x, y = places[1] - places[0]
            seen = _Sight(score, disagreement(points, places), float(np.degrees(np.arctan2(y, x))))
    return seen
