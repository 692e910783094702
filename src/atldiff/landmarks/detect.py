"""Face landmarks by MediaPipe Face Mesh, offline: the only module that knows the detector.

Another detector replaces it by offering the same functions and `FaceTracker` with the same shapes; a `search.Detector`
is most of the way.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from atldiff.errors import AtlDiffError, FaceNotFound
from atldiff.landmarks import search
from atldiff.landmarks.condition import conditions
from atldiff.landmarks.plausible import judge
from atldiff.landmarks.search import MIN_FACE_PX, default_of, face_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from atldiff.landmarks.search import FoundFace

logger = logging.getLogger(__name__)

CHECK_EVERY = 25
"""Frames after which a tracked face is looked at again, whether its mesh lies the right way up."""

RETRY_AFTER = 12
"""Frames after which a tracker starts anew whose mesh lay the wrong way up."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what MediaPipe's native code writes to file descriptor 2 while it starts."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all (a windowed program): nothing to hold back
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _solutions():  # noqa: ANN202 - MediaPipe has no types
    try:
        from mediapipe.python.solutions import face_detection, face_mesh
    except ImportError as error:
        raise AtlDiffError(
            f"face detector: MediaPipe with Face Mesh is needed ({error}); install mediapipe==0.10.14, made for "
            "Python 3.10 to 3.12"
        ) from None

    return face_mesh, face_detection


def _points(result_landmarks, width: float, height: float) -> np.ndarray:  # noqa: ANN001 - MediaPipe has no types
    points = np.array([(p.x, p.y, p.z) for p in result_landmarks.landmark], np.float32)  # (478, 3)
    return points * np.array([width, height, width], np.float32)


def _look(detector, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:  # noqa: ANN001
    """Do as `plausible.Look`, by one of MediaPipe's detectors."""
    size = np.array(picture.shape[1::-1], np.float32)
    return [
        (float(found.score[0]), size * [(place.x, place.y) for place in found.location_data.relative_keypoints])
        for found in detector.process(picture).detections or []
    ]


class FaceTracker:
    """Landmarks of one face over consecutive frames; reuse it for many clips, `reset` between them."""

    def __init__(self, min_confidence: float = 0.5) -> None:
        self._fresh, self._talked = True, False
        self._astray, self._until_check = False, 0
        with quiet_stderr():
            face_mesh, face_detection = _solutions()
            self._near = face_detection.FaceDetection(model_selection=0)
            self._near.process(np.zeros((64, 64, 3), np.uint8))
            self._mesh = face_mesh.FaceMesh(
                static_image_mode=False,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=min_confidence,
                min_tracking_confidence=min_confidence,
            )
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))

    def track(self, frame: np.ndarray) -> np.ndarray | None:
        """Return the landmarks (478, 3) in pixels of a frame (H, W, 3) uint8, or None where no face is seen.

        None as well where the mesh lies the wrong way up, as on a face that stands on its head. That is looked at when
        a face is new, and again after a second.
        """
        if self._astray and not self._until_check:
            self._fresh = False  # perhaps the face has turned meanwhile
        new = not self._fresh
        points = self._tracked(frame)
        if points is None:
            self._astray, self._until_check = False, 0
            return None
        if new or not self._until_check:
            with quiet_stderr():
                self._astray = judge(frame, points, partial(_look, self._near))[1] is not None
            self._until_check = RETRY_AFTER if self._astray else CHECK_EVERY
        self._until_check -= 1
        return None if self._astray else points

    def _tracked(self, frame: np.ndarray) -> np.ndarray | None:
        if self._fresh and self._talked:
            found = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
        else:
            # The graph's threads say a line each when it starts and on the first face. Reset and first picture stay
            # together: only a finished picture shows that the threads have nothing more to say.
            with quiet_stderr():
                if not self._fresh:
                    self._mesh.reset()
                found = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
            self._fresh, self._talked = True, bool(found)
        return _points(found[0], frame.shape[1], frame.shape[0]) if found else None

    def reset(self) -> None:
        """Forget the face of the last frame, before a frame of another clip."""
        self._fresh = False

    def close(self) -> None:
        """Release the native graphs."""
        self._mesh.close()
        self._near.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Detector:
    """MediaPipe's detectors and mesh for single pictures, each started when it is first needed."""

    def __init__(self) -> None:
        self._open = ExitStack()

    @cached_property
    def _near(self):  # noqa: ANN202 - MediaPipe has no types
        return self._open.enter_context(_solutions()[1].FaceDetection(model_selection=0))

    @cached_property
    def _far(self):  # noqa: ANN202
        return self._open.enter_context(_solutions()[1].FaceDetection(model_selection=1))

    @cached_property
    def _mesh(self):  # noqa: ANN202
        face_mesh, _ = _solutions()
        return self._open.enter_context(
            face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
        )

    def boxes(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        """Do as `search.Detector`."""
        boxes = []
        for detector in (self._near, self._far):
            for found in detector.process(picture).detections or []:
                box = found.location_data.relative_bounding_box
                boxes.append((box.xmin + box.width / 2, box.ymin + box.height / 2, box.width, box.height))
        return boxes

    def mesh(self, picture: np.ndarray) -> np.ndarray | None:
        """Do as `search.Detector`."""
        found = self._mesh.process(picture).multi_face_landmarks
        return _points(found[0], picture.shape[1], picture.shape[0]) if found else None

    def look(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Do as `plausible.Look`."""
        return _look(self._near, picture)

    def __enter__(self) -> _Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


def find_faces(image: np.ndarray) -> list[FoundFace]:
    """Return every face of an image (H, W, 3) uint8, even the smallest, in reading order; see `search.find_faces`.

    Raises:
        AtlDiffError: MediaPipe is not installed or has no Face Mesh.
    """
    with quiet_stderr(), _Detector() as detector:
        return search.find_faces(image, detector)


def detect_faces(image: np.ndarray) -> list[np.ndarray]:
    """Return the landmarks (478, 3) in pixels of the faces of an image (H, W, 3) uint8 that are large enough to use.

    In reading order: rows from top to bottom, from left to right inside a row.

    Raises:
        AtlDiffError: MediaPipe is not installed or has no Face Mesh.
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
            f"visible and at least {MIN_FACE_PX} px wide: try a closer or better lit picture"
        )
    if not usable:
        widest = max(face_width(face.points) for face in found)
        raise FaceNotFound(
            f"portrait: got a face {widest:.0f} px wide in the {width}x{height} picture, expected at least "
            f"{MIN_FACE_PX} px: take a larger or closer picture"
        )
    return usable
