"""The faces of a picture as a list to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atldiff.landmarks.condition import conditions
from atldiff.landmarks.crop import rotation_2d
from atldiff.landmarks.detect import find_faces, usable_of
from atldiff.landmarks.parted import part_lips
from atldiff.landmarks.plausible import roll_deg
from atldiff.landmarks.search import DOUBTFUL, MIN_FACE_PX, FoundFace, default_of
from atldiff.landmarks.topology import MESH_POINTS


@dataclass(frozen=True, slots=True)
class ListedFace:
    """One face of a picture.

    number: what `--face` takes, None for a face that is too small. centre: (2,) and width: across it, in pixels. box:
    (4, 2) the corners of the rectangle around it, turned as the face is, from its upper left one on clockwise.
    roll_deg: clockwise. default: whether it is taken where none is chosen. notes: what may spoil a video of it.
    points: (478, 3) pixels, as a video starts with them.
    """

    number: int | None
    centre: np.ndarray
    width: float
    box: np.ndarray
    roll_deg: float
    default: bool
    notes: tuple[str, ...]
    points: np.ndarray


def list_faces(image: np.ndarray) -> list[ListedFace]:
    """Return the faces of a picture (H, W, 3) uint8 in the order of their numbers, those too small to use at the end.

    Raises:
        FaceNotFound: no face that is large enough.
    """
    found = find_faces(image)
    usable = usable_of(image, found)
    default = default_of(usable)
    faces = [_listed(image, face, number, default=number == default) for number, face in enumerate(usable)]
    return faces + [_listed(image, face, None, default=False) for face in found if face not in usable]


def _listed(image: np.ndarray, face: FoundFace, number: int | None, *, default: bool) -> ListedFace:
    notes = [each.note for each in conditions(image, face.points)]
    if number is None:
        notes = [f"too small: expected {MIN_FACE_PX} px"]
    elif face.certainty < DOUBTFUL:
        notes.append("perhaps no face")
    return listed(part_lips(image, face.points), number, notes=tuple(notes), default=default)


def listed(points: np.ndarray, number: int | None, *, notes: tuple[str, ...], default: bool) -> ListedFace:
    """Return a face by its points (478, 3) in pixels."""
    roll = roll_deg(points)
    turn = rotation_2d(roll)
    upright = points[:MESH_POINTS, :2] @ turn
    (left, top), (right, bottom) = upright.min(axis=0), upright.max(axis=0)
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) @ turn.T
    return ListedFace(number, box.mean(axis=0), float(right - left), box, roll, default, notes, points)
