"""The first pass over a video: where the face is in every frame, and what its mouth looks like open and closed.

Pictures are let go as they are seen; landmarks lie on disk.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from atldiff.dubbing.store import PointStore
from atldiff.dubbing.view import FrameView
from atldiff.errors import FaceNotFound
from atldiff.landmarks.follow import Follower, seen_faces
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.rest import neutral_shape
from atldiff.landmarks.search import face_width
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import MESH_POINTS, POINTS, lip_opening
from atldiff.stages import stage
from atldiff.types import Portrait
from atldiff.video.detail import sharpness
from atldiff.video.footage import Stamps
from atldiff.video.window import STORED_MOUTH, extract, fit_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.dubbing.choice import WantedFace
    from atldiff.video.footage import Footage

_log = logging.getLogger(__name__)

OnMissing = Literal["hold", "skip", "passthrough", "error"]
ON_MISSING: tuple[OnMissing, ...] = get_args(OnMissing)

HELD_S = Fraction(2, 5)
"""The longest time without a face that landmarks are interpolated over."""
TRACKED_FPS = 32
"""Rates above are tracked in every second frame, or third, and so on; between them landmarks are interpolated."""
THOROUGHLY_EVERY = 12
"""Frames without any face after which a frame is searched for small and turned ones as well."""

SHAPES = 256
"""Shapes that the face at rest is the median of, evenly over the video."""
KEPT = 10
"""Open mouths whose pictures are kept until the best are chosen, and as many closed ones."""
APART_S = 0.3
FRONTAL_DEG = 18.0
OPEN = 0.05
"""Lip opening, in eye distances, from which a mouth may show teeth."""
WIDE_ENOUGH = 0.22
BLURRED = 0.5
"""Share of the usual sharpness below which a picture is left out."""
MARGIN = 0.25
"""What is kept of a picture around its face, in face widths."""


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face over a whole video.

    stamps: of all T frames. seen: (T,) whether the face was found in a frame or between two that were tracked; known:
    (T,) whether `points` has landmarks of it, interpolated ones too. neutral: (478, 3) canonical, lips closed.
    open_mouths: pictures, the widest first, perhaps none. closed_mouth: one.
    """

    stamps: Stamps
    seen: np.ndarray
    known: np.ndarray
    points: PointStore
    neutral: np.ndarray
    open_mouths: tuple[Portrait, ...]
    closed_mouth: Portrait
    faces: int


def track_face(
    footage: Footage, wanted: WantedFace, on_missing: OnMissing, *, progress: Callable[[int, int], None] | None = None
) -> TrackedFace:
    """Track a face through a video.

    progress: called with (done, all) frames.

    Raises:
        FaceNotFound: no face, or not the one that was asked for, or none in some frames where that is an error.
        MediaError: not a video. ValueError: a face that cannot be told.
    """
    return _Tracking(footage, wanted, on_missing).run(progress)


class _Tracking:
    def __init__(self, footage: Footage, wanted: WantedFace, on_missing: OnMissing) -> None:
        self._footage, self._wanted = footage, wanted
        self._step = max(1, -(-int(footage.rate) // TRACKED_FPS)) if footage.rate > TRACKED_FPS else 1
        held = max(1, round(HELD_S * footage.rate)) if on_missing == "hold" else 0
        self._longest = max(held, self._step - 1)  # frames between two that may be interpolated
        self._stamps, self._store = Stamps(), PointStore()
        self._seen: list[bool] = []
        self._known: list[bool] = []
        self._last: np.ndarray | None = None
        self._gap = 0
        self._most_faces = 0
        self._mouths = _Mouths()

    def run(self, progress: Callable[[int, int], None] | None) -> TrackedFace:
        footage = self._footage
        stated = footage.stated_frames
        follower: Follower | None = None
        blank = 0
        for index, frame in enumerate(footage.frames(self._stamps)):
            points = None
            if index % self._step == 0:
                with stage("detect"):
                    view = FrameView(footage.planar(frame), footage.shown)
                    if follower is None:
                        found = self._first(view, blank)
                        blank += 1
                        if found is not None:
                            follower, points = Follower(view, found), found
                    else:
                        points = follower.push(view)
                    if points is not None:
                        time_s = float(self._stamps.ticks[-1] * footage.tick)
                        self._mouths.push(view, points, time_s)
            self._take(points, tracked=index % self._step == 0)
            if progress:
                progress(index + 1, max(index + 1, stated))
        return self._done()

    def _first(self, view: FrameView, blank: int) -> np.ndarray | None:
        if blank % THOROUGHLY_EVERY and not seen_faces(view):
            return None
        points, faces = self._wanted.choose(view)
        self._most_faces = max(self._most_faces, faces)
        return points

    def _take(self, points: np.ndarray | None, *, tracked: bool) -> None:
        if points is None:
            self._gap += 1
            self._seen.append(not tracked and bool(self._seen) and self._seen[-1])
            self._known.append(False)
            self._store.append(np.zeros((POINTS, 3), np.float32))
            return
        if self._gap and self._last is not None and self._gap <= self._longest:
            start = len(self._store) - self._gap
            for number in range(self._gap):
                share = np.float32((number + 1) / (self._gap + 1))
                self._store.put(start + number, (1 - share) * self._last + share * points)
                self._known[start + number] = True
        self._gap, self._last = 0, points
        self._seen.append(True)
        self._known.append(True)
        self._store.append(points)

    def _done(self) -> TrackedFace:
        seen, known = np.array(self._seen), np.array(self._known)
        named = "" if self._wanted.named == "largest" else f" {self._wanted.named}"
        if not seen.any():
            if self._most_faces and self._wanted.looks is not None:
                raise FaceNotFound(
                    f"video {self._footage.path}: got --face{named}, but nobody looks like it; choose by number or "
                    "place (`atldiff faces` shows them)"
                )
            if self._most_faces:
                raise FaceNotFound(
                    f"video {self._footage.path}: got --face{named}, but no frame shows more than {self._most_faces} "
                    f"face{'s' if self._most_faces > 1 else ''}, numbered from 0 (`atldiff faces` shows them)"
                )
            raise FaceNotFound(
                f"video {self._footage.path}: no face in any of its {len(seen)} frames; expected one, upright and "
                "large enough: choose another video"
            )
        if 0 < self._gap < self._step:  # the last frames, between which and the end nothing was tracked
            for number in range(len(known) - self._gap, len(known)):
                self._store.put(number, self._last)  # pyright: ignore[reportArgumentType] - a face was seen
                known[number] = True
        open_mouths, closed_mouth = self._mouths.chosen()
        return TrackedFace(
            self._stamps, seen, known, self._store, self._mouths.neutral(), open_mouths, closed_mouth,
            max(1, self._most_faces),
        )  # fmt: skip


class _Mouths:
    """What is kept of the mouths of a video: shapes over all of it, and pictures of the widest and the most closed."""

    def __init__(self) -> None:
        self._shapes: list[np.ndarray] = []
        self._every = 1
        self._count = 0
        self._wide: list[tuple[float, int, float, Portrait]] = []
        self._closed: list[tuple[float, int, float, Portrait]] = []

    def push(self, view: FrameView, points: np.ndarray, time_s: float) -> None:
        shape, rotation, _, _ = to_canonical(points.astype(np.float64), mean_shape())
        if self._count % self._every == 0:
            self._shapes.append(shape.astype(np.float32))
            if len(self._shapes) == 2 * SHAPES:
                self._shapes, self._every = self._shapes[::2], 2 * self._every
        opening = float(lip_opening(shape))
        away = float(np.hypot(*euler_degrees(rotation)[:2])) / FRONTAL_DEG
        frontal = float(np.exp(-0.5 * away * away))
        if opening >= OPEN:
            self._keep(self._wide, min(opening, WIDE_ENOUGH) * frontal, view, points, time_s)
        self._keep(self._closed, frontal / (0.03 + opening), view, points, time_s)
        self._count += 1

    def _keep(self, kept: list, score: float, view: FrameView, points: np.ndarray, time_s: float) -> None:
        near = next((entry for entry in kept if abs(entry[2] - time_s) < APART_S), None)
        if near is not None:
            if near[0] >= score:
                return
            kept.remove(near)
            heapq.heapify(kept)
        elif len(kept) >= KEPT:
            if kept[0][0] >= score:
                return
            heapq.heappop(kept)
        heapq.heappush(kept, (score, self._count, time_s, _cut(view, points)))

    def neutral(self) -> np.ndarray:
        return neutral_shape(np.stack(self._shapes)).astype(np.float32)

    def chosen(self) -> tuple[tuple[Portrait, ...], Portrait]:
        """Return open mouths, the widest first, and one closed mouth, each among the sharper ones."""
        return tuple(entry[3] for entry in _sharper(self._wide)), _sharper(self._closed)[0][3]


def _sharper(entries: list[tuple[float, int, float, Portrait]]) -> list[tuple[float, int, float, Portrait]]:
    if len(entries) < 3:
        return sorted(entries, key=lambda entry: -entry[0])
    levels = []
    for entry in entries:
        matrix = fit_window(entry[3].landmarks[None], STORED_MOUTH)[0]
        levels.append(sharpness(extract(entry[3].image, matrix, STORED_MOUTH.size)))
    least = BLURRED * np.median(levels)
    kept = [entry for entry, level in zip(entries, levels, strict=True) if level >= least]
    return sorted(kept, key=lambda entry: -entry[0])


def _cut(view: FrameView, points: np.ndarray) -> Portrait:
    margin = MARGIN * face_width(points)
    low, high = points[:MESH_POINTS, :2].min(axis=0) - margin, points[:MESH_POINTS, :2].max(axis=0) + margin
    picture, corner = view.part(low, high)
    return Portrait(np.ascontiguousarray(picture), (points - np.append(corner, 0)).astype(np.float32))
