"""Which face of a video is dubbed: the largest, one by its number, by a place in the picture, or by a photograph."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.dubbing.view import FrameView
from atldiff.errors import FaceNotFound
from atldiff.landmarks.detect import find_faces
from atldiff.landmarks.follow import Appearance
from atldiff.landmarks.search import MIN_FACE_PX, default_of, face_width
from atldiff.landmarks.topology import MESH_POINTS
from atldiff.video.still import check_file, read_image

if TYPE_CHECKING:
    from typing import TypeAlias

    FaceChoice: TypeAlias = "WantedFace | int | tuple[float, float] | str | os.PathLike[str] | None"

EXPECTED = "largest, a number, a place x,y in the first frame, or a picture of the person"
CLEARLY = 1.25
"""How much more unlike a picture every other face has to be than the one that is taken."""
STRANGE = 1.7
"""Unlikeness to a picture above which a face is somebody else's: a later frame may show the person."""
BESIDE = 1.0
"""How far from a face, in its widths, a place still means it."""
_PLACE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, eq=False)
class WantedFace:
    """What was asked for: a number in reading order, a place (x, y) in pixels, what it looks like, or none of them."""

    number: int | None = None
    place: tuple[float, float] | None = None
    looks: Appearance | None = None
    named: str = "largest"

    @classmethod
    def of(cls, face: FaceChoice) -> WantedFace:
        """Read what a user asks for.

        Raises:
            ValueError: none of the forms. MediaError, FaceNotFound: no such picture, or not one face in it.
        """
        if isinstance(face, WantedFace):
            return face
        if face is None or face == "largest":
            return cls()
        if isinstance(face, bool):
            raise ValueError(f"face: got {face}, expected {EXPECTED}")
        if isinstance(face, (int, np.integer)):
            return cls._numbered(int(face))
        if isinstance(face, tuple):
            if len(face) != 2:
                raise ValueError(f"face: got {face}, expected {EXPECTED}")
            return cls(place=(float(face[0]), float(face[1])), named=f"{face[0]:g},{face[1]:g}")
        text = os.fspath(face)
        if re.fullmatch(r"[+-]?\d+", text):
            return cls._numbered(int(text))
        found = _PLACE.fullmatch(text)
        if found:
            return cls(place=(float(found[1]), float(found[2])), named=text)
        if not Path(text).exists() and not Path(text).suffix:
            raise ValueError(f"face: got {text!r}, expected {EXPECTED}")
        return cls(looks=_of_picture(Path(text)), named=text)

    @classmethod
    def _numbered(cls, number: int) -> WantedFace:
        if number < 0:
            raise ValueError(f"face: got {number}, expected 0 or more, as `atldiff faces` numbers them")
        return cls(number=number, named=str(number))

    def choose(self, view: FrameView) -> tuple[np.ndarray | None, int]:
        """Return the landmarks (478, 3) of the face in a frame, and how many faces it shows.

        None where there is none, or not yet the one that was asked for by its number or by a picture.

        Raises:
            FaceNotFound: no face near the place. ValueError: two faces look as much like the picture.
        """
        faces = [face for face in find_faces(view.whole()) if face_width(face.points) >= MIN_FACE_PX]
        if not faces:
            return None, 0
        points = [face.points for face in faces]
        if self.number is not None:
            return (points[self.number] if self.number < len(points) else None), len(points)
        if self.place is not None:
            return self._at(points, view.size), len(points)
        if self.looks is None:
            return points[default_of(faces)], len(points)
        unlike = [Appearance.of(view, each).unlike(self.looks, clothes=False) for each in points]
        order = np.argsort(unlike)
        if unlike[order[0]] > STRANGE:
            return None, len(points)
        if len(points) > 1 and unlike[order[1]] < CLEARLY * unlike[order[0]]:
            raise ValueError(
                f"face {self.named}: faces {order[0]} and {order[1]} look alike to it, expected one that does: choose "
                "by number or place (`atldiff faces` shows them)"
            )
        return points[int(order[0])], len(points)

    def _at(self, points: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        place = np.array(self.place)
        if not (0 <= place[0] < size[1] and 0 <= place[1] < size[0]):
            raise ValueError(f"face: got place {self.named}, expected one in the picture of {size[1]}x{size[0]} pixels")
        apart = []
        for each in points:
            low, high = each[:MESH_POINTS, :2].min(0), each[:MESH_POINTS, :2].max(0)
            outside = np.linalg.norm(np.maximum(np.maximum(low - place, place - high), 0))
            middle = float(np.linalg.norm((low + high) / 2 - place)) / 1e6  # of two that hold it, the nearer middle
            apart.append(float(outside) / face_width(each) + middle)
        nearest = int(np.argmin(apart))
        if apart[nearest] > BESIDE:
            middles = ", ".join("{:.0f},{:.0f}".format(*each[:MESH_POINTS, :2].mean(0)) for each in points)
            raise FaceNotFound(f"face: got place {self.named}, where no face is; expected one near {middles}")
        return points[nearest]


def _of_picture(path: Path) -> Appearance:
    check_file(path, "face")
    image = read_image(path)
    faces = [face for face in find_faces(image) if face_width(face.points) >= MIN_FACE_PX]
    if len(faces) != 1:
        raise FaceNotFound(f"face {path}: got {len(faces)} faces, expected a picture of one")
    return Appearance.of(_Picture(image), faces[0].points)


class _Picture:
    """A still picture as a view."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self.size = (image.shape[0], image.shape[1])

    def part(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.clip(np.floor(low).astype(int), 0, np.array(self.size[::-1]) - 1)
        last = np.clip(np.ceil(high).astype(int), first + 1, self.size[::-1])
        return np.ascontiguousarray(self._image[first[1] : last[1], first[0] : last[0]]), first.astype(np.float64)

    def whole(self) -> np.ndarray:
        return self._image
