"""The search for the faces of a picture: at all sizes, each measured in a crop of its own, the right way up.

What finds and measures them is a `Detector`; nothing here knows which.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import numpy as np

from atldiff.landmarks.crop import cut, rotation_2d
from atldiff.landmarks.order import reading_order
from atldiff.landmarks.plausible import CERTAIN, bounding_square, judge, roll_deg
from atldiff.landmarks.topology import MESH_POINTS, POINTS
from atldiff.machine import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CROP_SIDE = 512
"""Side in pixels of the square a found face is resampled to before its landmarks are measured."""

SAME_FACE = 0.3
"""Overlap of two measured faces from which they are one."""

TURNED_DEG = 45.0
"""Roll from which a face is measured once more in a crop that is turned: the mesh is made for upright faces."""

LYING_DEG = 60.0
"""Roll from which faces are looked for in the turned picture too, and which is mentioned."""

TILE_SHARES = (1.0, 0.6, 0.36, 0.22)
"""Sides of the squares that are searched, as shares of the picture's shorter side."""

TURNED_TILE_SHARES = TILE_SHARES[:1]
"""Likewise in turned pictures, for faces of which nothing is seen in the picture as it is."""

DOUBTFUL = 0.6
"""Certainty below which it is perhaps no face."""

MIN_FACE_PX = 24
"""Smallest accepted width of a face in pixels; below it the mouth is a handful of pixels."""


class Detector(Protocol):
    """What finds faces and measures them."""

    def boxes(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        """Return the centre (x, y), width and height, as shares of the picture's, of what may be faces."""
        ...

    def mesh(self, picture: np.ndarray) -> np.ndarray | None:
        """Return the landmarks (478, 3) in pixels of the likeliest face of a square picture, or None."""
        ...

    def look(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Do as `plausible.Look`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """One face of a picture: its landmarks (478, 3) in pixels, and how certain they are, as of `plausible.judge`."""

    points: np.ndarray
    certainty: float

    @property
    def is_certain(self) -> bool:
        """Whether it is a face, and the right way up, beyond doubt."""
        return self.certainty >= CERTAIN


def _tiles(height: int, width: int, shares: Sequence[float]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (x, y, width, height) of the whole picture, then of overlapping squares of falling size."""
    yield 0, 0, width, height
    shorter = min(height, width)
    for share in shares:
        side = int(shorter * share)
        if side < 2 * MIN_FACE_PX:
            return
        columns = max(1, int(np.ceil((width - side) / (side * 0.6))) + 1)
        rows = max(1, int(np.ceil((height - side) / (side * 0.6))) + 1)
        for y in np.linspace(0, height - side, rows).astype(int):
            for x in np.linspace(0, width - side, columns).astype(int):
                yield int(x), int(y), side, side


def _candidate_boxes(
    image: np.ndarray, detector: Detector, shares: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Return squares (centre x, centre y, side) around what may be faces, the largest first.

    The search stops at the coarsest scale that shows a face.
    """
    import cv2

    def look(place: tuple[int, int, int, int]) -> list[tuple[float, float, float]]:
        x, y, width, height = place
        tile = image[y : y + height, x : x + width]
        if max(width, height) > CROP_SIDE:
            ratio = CROP_SIDE / max(width, height)
            tile = cv2.resize(tile, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        return [
            (x + across * width, y + down * height, max(wide * width, high * height))
            for across, down, wide, high in detector.boxes(np.ascontiguousarray(tile))
        ]

    with ThreadPoolExecutor(cores()) as threads:  # a picture without a face is looked at dozens of times
        for _, places in groupby(_tiles(image.shape[0], image.shape[1], shares), key=lambda place: place[2]):
            boxes = [box for found in threads.map(look, places) for box in found]
            if boxes:
                return sorted(boxes, key=lambda box: -box[2])
    return []


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of the bounding boxes of two point sets."""
    low = np.maximum(first[:, :2].min(0), second[:, :2].min(0))
    high = np.minimum(first[:, :2].max(0), second[:, :2].max(0))
    inner = np.prod(np.clip(high - low, 0, None))
    areas = [np.prod(np.ptp(points[:, :2], axis=0)) for points in (first, second)]
    return float(inner / max(sum(areas) - inner, 1e-6))


def _same(first: FoundFace, second: FoundFace) -> bool:
    """Return whether two faces are one, the same way up."""
    apart = (roll_deg(first.points) - roll_deg(second.points) + 180) % 360 - 180
    return abs(apart) < TURNED_DEG and _overlap(first.points, second.points) >= SAME_FACE


def _measure(
    detector: Detector, image: np.ndarray, box: tuple[float, float, float], roll: float = 0.0
) -> np.ndarray | None:
    """Return the landmarks of the face in a box, measured twice: the second crop is centred on the first result.

    roll: degrees by which the face is turned clockwise; crops are turned so that it stands upright in them.
    """
    centre, side = np.array(box[:2]), box[2]
    points = None
    for reach in (2.0, 1.6):
        crop = cut(image, centre, side * reach, CROP_SIDE, roll)
        local = detector.mesh(crop.pixels)
        if local is None:
            continue
        points = np.empty((POINTS, 3), np.float32)
        points[:, :2] = crop.to_picture(local[:, :2])
        points[:, 2] = local[:, 2] * np.float64(crop.step)
        centre, side = bounding_square(points, roll)
    return points


def _righted(detector: Detector, image: np.ndarray, points: np.ndarray) -> FoundFace | None:
    """Return a measured face the right way up, measured again where it is turned; None where that fails."""

    def again(roll: float) -> np.ndarray | None:
        centre, side = bounding_square(points, roll)
        return _measure(detector, image, (float(centre[0]), float(centre[1]), side), roll)

    roll = roll_deg(points)
    if abs(roll) > TURNED_DEG:
        turned = again(roll)
        points = points if turned is None else turned
    certainty, seen_roll = judge(image, points, detector.look)
    if seen_roll is None:
        return FoundFace(points, certainty)
    turned = again(seen_roll)
    if turned is None:
        return None
    certainty, seen_roll = judge(image, turned, detector.look)
    return FoundFace(turned, certainty) if seen_roll is None else None


def _search(image: np.ndarray, detector: Detector, shares: Sequence[float]) -> list[FoundFace]:
    """Return the faces of a picture as it is, the largest first."""
    faces: list[FoundFace] = []

    def is_new(points: np.ndarray) -> bool:
        return all(_overlap(points, other.points) < SAME_FACE for other in faces)

    for box in _candidate_boxes(image, detector, shares):
        points = _measure(detector, image, box)
        face = _righted(detector, image, points) if points is not None and is_new(points) else None
        if face is not None and is_new(face.points):
            faces.append(face)
    return faces


def _search_turned(image: np.ndarray, detector: Detector, quarters: int, shares: Sequence[float]) -> list[FoundFace]:
    """Return the certain faces of a picture that are seen when it is turned anticlockwise by quarters of a turn."""
    height, width = image.shape[:2]
    found = []
    for face in _search(np.rot90(image, quarters), detector, shares):
        if face.is_certain:
            x, y, z = face.points.T
            x, y = ((x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x))[quarters]
            found.append(FoundFace(np.stack([x, y, z], axis=1), face.certainty))
    return found


def face_width(points: np.ndarray) -> float:
    """Return the width in pixels of a face with landmarks (478, 2 or 3), across it however it is turned."""
    turn = rotation_2d(roll_deg(points))
    return float(np.ptp((points[:MESH_POINTS, :2] @ turn)[:, 0]))


def default_of(faces: Sequence[FoundFace]) -> int:
    """Return which of several faces is taken where none is chosen: the largest, of those that are hardly none."""
    areas = [float(np.prod(np.ptp(face.points[:MESH_POINTS, :2], axis=0))) for face in faces]
    return max(range(len(faces)), key=lambda index: (faces[index].certainty >= DOUBTFUL, areas[index]))


def find_faces(image: np.ndarray, detector: Detector) -> list[FoundFace]:
    """Return every face of an image (H, W, 3) uint8, even the smallest, in reading order.

    Faces are looked for in the whole picture, then in ever smaller overlapping squares of it; each is cropped,
    resampled and measured again, so a small face is measured as exactly as its pixels allow. Where no face is certain,
    or one lies on its side or head, the picture is turned and looked at again.
    """
    faces = _search(image, detector, TILE_SHARES)
    if not any(face.is_certain for face in faces):
        for quarters in (2, 1, 3):
            turned = _search_turned(image, detector, quarters, TURNED_TILE_SHARES)
            if turned:
                faces = [next((face for face in faces if _same(face, other)), other) for other in turned]
                break
    else:
        roll = roll_deg(faces[default_of(faces)].points)
        if abs(roll) > LYING_DEG:
            for face in _search_turned(image, detector, round(roll / 90) % 4, TILE_SHARES):
                if all(_overlap(face.points, other.points) < SAME_FACE for other in faces):
                    faces.append(face)
    corners = [(face.points[:MESH_POINTS, :2].min(0), face.points[:MESH_POINTS, :2].max(0)) for face in faces]
    if not faces:
        return []
    low, high = (np.stack(each) for each in zip(*corners, strict=True))
    return [faces[index] for index in reading_order(low, high)]
