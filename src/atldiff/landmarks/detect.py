"""Face landmarks by MediaPipe Face Mesh, offline: the only module that knows the detector.

Another detector replaces it by offering `detect_faces` and `FaceTracker` with the same shapes.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from atldiff.errors import AtlDiffError, FaceNotFound
from atldiff.landmarks.topology import MESH_POINTS, POINTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

logger = logging.getLogger(__name__)

CROP_SIDE = 512
"""Side in pixels of the square a found face is resampled to before its landmarks are measured."""

CONFIDENT, DOUBTFUL = 0.5, 0.25
"""Detection scores: a doubtful face is measured only where there is no confident one."""

SAME_FACE = 0.3
"""Overlap of two measured faces from which they are one."""

MIN_FACE_PX = 24
"""Smallest accepted width of a face in pixels; below it the mouth is a handful of pixels."""


@contextmanager
def _quiet_stderr() -> Iterator[None]:
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


class FaceTracker:
    """Landmarks of one face over consecutive frames; reuse it for many clips, `reset` between them."""

    def __init__(self, min_confidence: float = 0.5) -> None:
        self._fresh, self._talked = True, False
        with _quiet_stderr():
            face_mesh, _ = _solutions()
            self._mesh = face_mesh.FaceMesh(
                static_image_mode=False,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=min_confidence,
                min_tracking_confidence=min_confidence,
            )
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))

    def track(self, frame: np.ndarray) -> np.ndarray | None:
        """Return the landmarks (478, 3) in pixels of a frame (H, W, 3) uint8, or None where no face is seen."""
        if self._fresh and self._talked:
            found = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
        else:
            # The graph's threads say a line each when it starts and on the first face. Reset and first picture stay
            # together: only a finished picture shows that the threads have nothing more to say.
            with _quiet_stderr():
                if not self._fresh:
                    self._mesh.reset()
                found = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
            self._fresh, self._talked = True, bool(found)
        return _points(found[0], frame.shape[1], frame.shape[0]) if found else None

    def reset(self) -> None:
        """Forget the face of the last frame, before a frame of another clip."""
        self._fresh = False

    def close(self) -> None:
        """Release the native graph."""
        self._mesh.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tiles(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (x, y, width, height) of the whole picture, then of overlapping squares of falling size."""
    yield 0, 0, width, height
    shorter = min(height, width)
    for fraction in (1.0, 0.6, 0.36, 0.22):
        side = int(shorter * fraction)
        if side < 2 * MIN_FACE_PX:
            return
        columns = max(1, int(np.ceil((width - side) / (side * 0.6))) + 1)
        rows = max(1, int(np.ceil((height - side) / (side * 0.6))) + 1)
        for y in np.linspace(0, height - side, rows).astype(int):
            for x in np.linspace(0, width - side, columns).astype(int):
                yield int(x), int(y), side, side


def _candidate_boxes(image: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Return squares (centre x, centre y, side, confidence) around what may be faces.

    The search stops at the coarsest scale that shows a face with confidence; doubtful ones do not stop it.
    """
    import cv2

    _, face_detection = _solutions()
    boxes: list[tuple[float, float, float, float]] = []
    near = face_detection.FaceDetection(model_selection=0, min_detection_confidence=DOUBTFUL)
    far = face_detection.FaceDetection(model_selection=1, min_detection_confidence=DOUBTFUL)
    with near, far:
        last_side = None
        for x, y, width, height in _tiles(*image.shape[:2]):
            if width != last_side and any(box[3] >= CONFIDENT for box in boxes):
                break
            last_side = width
            tile = image[y : y + height, x : x + width]
            if max(width, height) > CROP_SIDE:
                ratio = CROP_SIDE / max(width, height)
                tile = cv2.resize(tile, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
            tile = np.ascontiguousarray(tile)
            for detector in (near, far):
                for found in detector.process(tile).detections or []:
                    box = found.location_data.relative_bounding_box
                    boxes.append((
                        x + (box.xmin + box.width / 2) * width,
                        y + (box.ymin + box.height / 2) * height,
                        max(box.width * width, box.height * height),
                        float(found.score[0]),
                    ))  # fmt: skip
    return boxes


def _square_crop(image: np.ndarray, box: tuple[float, float, float], reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a CROP_SIDE square around a box, edges replicated, and the (2, 3) map from its pixels to the image's."""
    import cv2

    side = box[2] * reach
    step = side / CROP_SIDE
    to_image = np.array([[step, 0, box[0] - side / 2], [0, step, box[1] - side / 2]], np.float64)
    source = image
    if step > 2:  # a bilinear fetch skips pixels when shrinking: average first
        ratio = 1 / step
        source = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        fetch = np.array([[1, 0, to_image[0, 2] * ratio], [0, 1, to_image[1, 2] * ratio]], np.float64)
    else:
        fetch = to_image
    crop = cv2.warpAffine(
        source,
        fetch,
        (CROP_SIDE, CROP_SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return crop, to_image


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of the bounding boxes of two point sets."""
    low = np.maximum(first[:, :2].min(0), second[:, :2].min(0))
    high = np.minimum(first[:, :2].max(0), second[:, :2].max(0))
    inner = np.prod(np.clip(high - low, 0, None))
    areas = [np.prod(np.ptp(points[:, :2], axis=0)) for points in (first, second)]
    return float(inner / max(sum(areas) - inner, 1e-6))


def detect_faces(image: np.ndarray) -> list[np.ndarray]:
    """Return the landmarks (478, 3) in pixels of every face in an image (H, W, 3) uint8, largest face first.

    Faces are looked for in the whole picture, then in ever smaller overlapping squares of it; each is cropped,
    resampled and measured again, so a small face is measured as exactly as its pixels allow.

    Raises:
        AtlDiffError: MediaPipe is not installed or has no Face Mesh.
    """
    with _quiet_stderr():
        faces = _measured_faces(image)
    faces = [points for points in faces if np.ptp(points[:MESH_POINTS, 0]) >= MIN_FACE_PX]
    return sorted(faces, key=lambda points: -float(np.prod(np.ptp(points[:MESH_POINTS, :2], axis=0))))


def _measured_faces(image: np.ndarray) -> list[np.ndarray]:
    face_mesh, _ = _solutions()
    candidates = sorted(_candidate_boxes(image), key=lambda box: -box[2])
    faces: list[np.ndarray] = []
    for low, high in ((CONFIDENT, np.inf), (DOUBTFUL, CONFIDENT)):
        boxes = [box[:3] for box in candidates if low <= box[3] < high]
        if not boxes or faces:
            continue
        with face_mesh.FaceMesh(
            static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=low
        ) as mesh:
            for box in boxes:
                points = _measure(mesh, image, box)
                if points is not None and all(_overlap(points, other) < SAME_FACE for other in faces):
                    faces.append(points)
    return faces


def _measure(mesh, image: np.ndarray, box: tuple[float, float, float]) -> np.ndarray | None:  # noqa: ANN001
    """Return the landmarks of the face in a box, measured twice: the second crop is centred on the first result."""
    points = None
    for reach in (2.0, 1.6):
        crop, to_image = _square_crop(image, box, reach)
        found = mesh.process(crop).multi_face_landmarks
        if not found:
            continue
        local = _points(found[0], CROP_SIDE, CROP_SIDE)
        points = np.empty((POINTS, 3), np.float32)
        points[:, :2] = local[:, :2] * to_image[0, 0] + to_image[:, 2]
        points[:, 2] = local[:, 2] * to_image[0, 0]
        low, high = points[:MESH_POINTS, :2].min(0), points[:MESH_POINTS, :2].max(0)
        box = (*((low + high) / 2), float((high - low).max()))
    return points


def detect(image: np.ndarray, face: int | None = None) -> np.ndarray:
    """Return the landmarks (478, 3) float32 pixels of one face of an image (H, W, 3) uint8.

    face: 0 is the largest face, 1 the next; None takes the largest.

    Raises:
        FaceNotFound: no face, or no face of that number.
    """
    faces = detect_faces(image)
    height, width = image.shape[:2]
    if not faces:
        raise FaceNotFound(
            f"portrait: no face found in the {width}x{height} picture; expected one face, upright, eyes and mouth "
            f"visible and at least {MIN_FACE_PX} px wide: try a closer or better lit picture"
        )
    if face is not None and not 0 <= face < len(faces):
        raise FaceNotFound(
            f"portrait: got --face {face}, expected 0 to {len(faces) - 1} "
            f"({len(faces)} face{'s' if len(faces) > 1 else ''} found, 0 is the largest)"
        )
    if face is None and len(faces) > 1:
        logger.warning("%d faces found, taking the largest; choose another with --face 1 and so on", len(faces))
    return faces[face or 0]
