"""Face landmarks by Face Mesh: detector, mesh and search put together, for one picture or frame after frame.

Another detector replaces it by offering the same functions and `FaceTracker` with the same shapes; a `search.Detector`
is most of the way.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from atldiff.errors import FaceNotFound
from atldiff.landmarks import search
from atldiff.landmarks.boxes import LEAST, find_boxes
from atldiff.landmarks.condition import conditions
from atldiff.landmarks.mesh import PRESENT, measure, next_region, region_of
from atldiff.landmarks.plausible import judge
from atldiff.landmarks.search import MIN_FACE_PX, default_of, face_width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from atldiff.landmarks.region import Region
    from atldiff.landmarks.search import FoundFace

logger = logging.getLogger(__name__)

CHECK_EVERY = 25
"""Frames after which a tracked face is looked at again, whether its mesh lies the right way up."""

RETRY_AFTER = 12
"""Frames after which a tracker starts anew whose mesh lay the wrong way up."""


def _look(picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Do as `plausible.Look`."""
    return [(face.score, face.key_points.astype(np.float32)) for face in find_boxes(picture, "near")]


def _surest(picture: np.ndarray, least: float = LEAST["near"], present: float = PRESENT) -> np.ndarray | None:
    """Return the landmarks (478, 3) in pixels of the face that the detector is surest of, or None."""
    found = find_boxes(picture, "near", least)
    return measure(picture, region_of(found[0]), present) if found else None


class FaceTracker:
    """Landmarks of one face over consecutive frames; reuse it for many clips, `reset` between them."""

    def __init__(self, min_confidence: float = 0.5) -> None:
        self._least = min_confidence
        self._region: Region | None = None
        self._astray, self._until_check = False, 0

    def track(self, frame: np.ndarray) -> np.ndarray | None:
        """Return the landmarks (478, 3) in pixels of a frame (H, W, 3) uint8, or None where no face is seen.

        A face is looked for where the last frame had one, and in the whole frame if it is not there: after a cut. None
        as well where the mesh lies the wrong way up, as on a face that stands on its head. That is looked at when a
        face is new, and again after a second.
        """
        if self._astray and not self._until_check:
            self._region = None  # perhaps the face has turned meanwhile
        points = None if self._region is None else measure(frame, self._region, self._least)
        new = points is None
        if points is None:
            points = _surest(frame, self._least, self._least)
        self._region = None if points is None else next_region(points)
        if points is None:
            self._astray, self._until_check = False, 0
            return None
        if new or not self._until_check:
            self._astray = judge(frame, points, _look)[1] is not None
            self._until_check = RETRY_AFTER if self._astray else CHECK_EVERY
        self._until_check -= 1
        return None if self._astray else points

    def reset(self) -> None:
        """Forget the face of the last frame, before a frame of another clip."""
        self._region = None

    def close(self) -> None:
        """Do nothing; the networks stay open for the next tracker."""

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Detector:
    """The detectors and the mesh for single pictures."""

    def boxes(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        """Do as `search.Detector`."""
        size = np.array(picture.shape[1::-1], np.float64)
        return [
            (*((face.low + face.high) / 2 / size).tolist(), *((face.high - face.low) / size).tolist())
            for kind in ("near", "far")
            for face in find_boxes(picture, kind)
        ]

    def mesh(self, picture: np.ndarray) -> np.ndarray | None:
        """Do as `search.Detector`."""
        return _surest(picture)

    def look(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Do as `plausible.Look`."""
        return _look(picture)


def find_faces(image: np.ndarray) -> list[FoundFace]:
    """Return every face of an image (H, W, 3) uint8, even the smallest, in reading order; see `search.find_faces`.

    Raises:
        AtlDiffError: ONNX Runtime or a network of the package is missing.
    """
    return search.find_faces(image, _Detector())


def detect_faces(image: np.ndarray) -> list[np.ndarray]:
    """Return the landmarks (478, 3) in pixels of the faces of an image (H, W, 3) uint8 that are large enough to use.

    In reading order: rows from top to bottom, from left to right inside a row.

    Raises:
        AtlDiffError: ONNX Runtime or a network of the package is missing.
    """
    return [face.points for face in find_faces(image) if face_width(face.points) >= MIN_FACE_PX]


def detect(image: np.ndarray, face: int | None = None) -> np.ndarray:
    """Return the landmarks (478, 3) float32 pixels of one face of an image (H, W, 3) uint8.

    face: its number in reading order, from 0; None takes the largest face. What will hardly make a good video is
    warned of: a face that lies on its side, covered lips, closed eyes.

    Raises:
        FaceNotFound: no face, or no face of that number.
    """
    faces = usable_of(image, find_faces(image))
    if face is not None and not 0 <= face < len(faces):
        raise FaceNotFound(
            f"portrait: got --face {face}, expected 0 to {len(faces) - 1} "
            f"({len(faces)} face{'s' if len(faces) > 1 else ''} found, numbered row by row from left to right)"
        )
    chosen = default_of(faces) if face is None else face
    if face is None and len(faces) > 1:
        logger.warning(
            "%d faces found, taking number %d, the largest; choose another with --face N: they are numbered row by "
            "row from left to right, from 0 on (`atldiff faces` shows them)",
            len(faces),
            chosen,
        )
    points = faces[chosen].points
    for condition in conditions(image, points):
        logger.warning("%s", condition.advice)
    return points


def usable_of(image: np.ndarray, found: Sequence[FoundFace]) -> list[FoundFace]:
    """Return those of the faces found in a picture (H, W, 3) that are large enough to use, at least one.

    Raises:
        FaceNotFound: none is.
    """
    height, width = image.shape[:2]
    usable = [face for face in found if face_width(face.points) >= MIN_FACE_PX]
    if not found:
        raise FaceNotFound(
            f"portrait: no face found in the {width}x{height} picture; expected one face, upright, eyes and mouth "
            f"visible and at least {MIN_FACE_PX} px wide: try a closer or better lit picture, or say where the "
            "face is with --portrait-landmarks (in Python: landmarks), as for a drawing"
        )
    if not usable:
        widest = max(face_width(face.points) for face in found)
        raise FaceNotFound(
            f"portrait: got a face {widest:.0f} px wide in the {width}x{height} picture, expected at least "
            f"{MIN_FACE_PX} px: take a larger or closer picture"
        )
    return usable
