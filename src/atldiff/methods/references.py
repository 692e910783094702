"""Further pictures of a portrait's person, which show of the open mouth what the portrait does not.

Of a picture its largest face is taken; of a video the frames of its widest and of its most closed mouth.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from atldiff.errors import FaceNotFound, MediaError
from atldiff.landmarks.detect import FaceTracker, find_faces, usable_of
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.search import MIN_FACE_PX, default_of, face_width
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import MESH_POINTS, lip_opening
from atldiff.methods.portrait import open_portrait, video_path
from atldiff.stages import stage
from atldiff.types import Portrait
from atldiff.video.detail import sharpness
from atldiff.video.read import probe, read_frames_at
from atldiff.video.still import check_file, read_image
from atldiff.video.window import STORED_MOUTH, extract, fit_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from atldiff.methods.portrait import GivenLandmarks, PortraitSource

_log = logging.getLogger(__name__)

MOST = 16
"""Pictures and videos that are taken: more of one mouth show nothing new."""
SAMPLED_FRAMES = 150
"""Frames of a video that are looked at, evenly over what is searched of it."""
SEARCHED_S = 60
"""Seconds of a video that are searched: a minute of talk shows a mouth as wide and as closed as an hour."""

NEAR_DEG = 8.0
"""Heads turned and nodding by no more than this against the portrait's stand as it does."""
NEAR_SHARE = 0.3
"""Of a head that hardly ever does, the share of frames that come nearest."""
BLURRED_SHARE = 0.3
"""Share of those frames that are left out as the least sharp."""

MARGIN = 0.25
"""What is kept of a reference around its face, in face widths."""
WATCHED = 1.5
"""Half the side of the square around a video portrait's face in which it is followed, in face widths."""
SAME_PLACE, SAME_WIDTH = 1.0, 1.6
"""A face in that square is the portrait's if it has moved by no more than so many face widths, and is no more than so
many times wider or narrower."""


def open_with_references(
    source: PortraitSource,
    face: int | None = None,
    frame: int | None = None,
    references: Iterable[PortraitSource] | None = None,
    landmarks: GivenLandmarks | None = None,
) -> Portrait:
    """Return a portrait with its references; arguments and errors as of `TalkingHead.open_portrait`."""
    given = None if references is None else check_references(references)
    portrait = open_portrait(source, face, frame, landmarks)
    if given is not None:
        return replace(portrait, references=open_references(given, portrait))
    path = video_path(source)
    return portrait if path is None else replace(portrait, references=own_references(path, portrait, frame))


def check_references(references: Iterable[PortraitSource]) -> list[PortraitSource]:
    """Return references as a list, before any of them is opened.

    Raises:
        ValueError: no list, or more than 16. MediaError: a file that is missing, empty or not readable.
    """
    if isinstance(references, (str, os.PathLike, np.ndarray)) or not hasattr(references, "__iter__"):
        got = type(references).__name__
        raise ValueError(f"references: got one {got}, expected a list of pictures or videos: put it in brackets")
    given = list(references)
    if len(given) > MOST:
        raise ValueError(f"references: got {len(given)}, expected at most {MOST}: leave out those that are most alike")
    for source in given:
        if isinstance(source, (str, os.PathLike)):
            check_file(Path(source), "reference")
    return given


def open_references(sources: Sequence[PortraitSource], portrait: Portrait) -> tuple[Portrait, ...]:
    """Return one picture of each source, up to two of a video, cut to the face.

    portrait: its head's pose is what frames of a video are chosen by.

    Raises:
        FaceNotFound: a source without a face. MediaError, ValueError: not a picture or video.
    """
    opened: list[Portrait] = []
    for number, source in enumerate(sources, 1):
        path = video_path(source)
        if isinstance(source, Portrait):
            opened.append(source)
        elif path is not None:
            opened += _of_video(path, portrait)
        else:
            opened.append(_of_picture(source, number))
    return tuple(opened)


def own_references(path: Path, portrait: Portrait, frame: int | None = None) -> tuple[Portrait, ...]:
    """Return the widest and the most closed mouth of the video that a portrait was taken from, where it moves on.

    Only a face counts that stays about where the portrait's is, so no neighbour's. frame: the portrait's, None for an
    early one; the minute around it is searched.
    """
    try:
        first_s = Fraction(0) if not frame else max(Fraction(0), frame / probe(path).fps - Fraction(SEARCHED_S, 2))
        clip = _Clip.sampled(path, first_s)
        seen = clip.seen(portrait, _Watch.around(portrait))
        chosen = _chosen(seen) if len(seen) > 1 else []
        found = tuple(clip.picture(each) for each in chosen)
    except MediaError as error:  # one frame of it was good enough as portrait
        _log.info("portrait %s: no references: %s", path, error)
        return ()
    if found:
        at = " and ".join(f"{float(each.index / clip.fps):.2f} s" for each in chosen)
        _log.info("portrait %s: its widest and its most closed mouth, at %s, are references", path, at)
    return found


def _of_picture(source: PortraitSource, number: int) -> Portrait:
    named = f"reference {source if isinstance(source, (str, os.PathLike)) else f'number {number}'}"
    try:
        image = read_image(source)  # pyright: ignore[reportArgumentType]
        with stage("detect"):
            faces = usable_of(image, find_faces(image))
    except (FaceNotFound, MediaError, ValueError) as error:
        told = str(error).removeprefix("portrait: ").removeprefix(f"image {source}: ")
        raise type(error)(f"{named}: {told}") from None
    return _cut(image, faces[default_of(faces)].points)


def _of_video(path: Path, portrait: Portrait) -> list[Portrait]:
    clip = _Clip.sampled(path)
    seen = clip.seen(portrait)
    if not seen:
        raise FaceNotFound(
            f"reference {path}: no face found in {clip.frames} frames of its first minute; expected one, upright and "
            f"at least {MIN_FACE_PX} px wide: cut the video to where it is seen"
        )
    return [clip.picture(each) for each in _chosen(seen)]


class _Seen(NamedTuple):
    """A face in a frame of a video.

    opening: of the lips, in eye distances. away_deg: how far the head is turned from the portrait's. detail: sharpness
    around the mouth. points: (478, 3) pixels.
    """

    index: int
    opening: float
    away_deg: float
    detail: float
    points: np.ndarray


def _chosen(seen: Sequence[_Seen]) -> list[_Seen]:
    """Return the widest and the most closed mouth of those that are near the portrait's pose and sharp, or one."""
    away, detail = (np.array([getattr(each, name) for each in seen]) for name in ("away_deg", "detail"))
    near = away <= max(NEAR_DEG, float(np.quantile(away, NEAR_SHARE)))
    fit = near & (detail >= np.quantile(detail[near], BLURRED_SHARE))
    ordered = sorted((each for each, taken in zip(seen, fit, strict=True) if taken), key=lambda each: each.opening)
    return [ordered[-1], ordered[0]] if len(ordered) > 1 else ordered


class _Watch(NamedTuple):
    """Where a video portrait's face is followed: the square's first and last pixels, and the face's place and width."""

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    width: float

    @classmethod
    def around(cls, portrait: Portrait) -> _Watch:
        centre, width = _place(portrait.landmarks)
        low = np.maximum(np.floor(centre - WATCHED * width), 0).astype(int)
        high = np.minimum(np.ceil(centre + WATCHED * width).astype(int), portrait.image.shape[1::-1])
        return cls(low, high, centre, width)

    def is_same(self, points: np.ndarray) -> bool:
        """Return whether a face with landmarks (478, 3) is about where the portrait's is, and as large."""
        centre, width = _place(points)
        moved = np.linalg.norm(centre - self.centre) <= SAME_PLACE * self.width
        return bool(moved and 1 / SAME_WIDTH <= width / self.width <= SAME_WIDTH)


class _Clip(NamedTuple):
    """A video sampled evenly: `frames` of it from number `first` on, at `fps`. Pictures are let go as they are seen."""

    path: Path
    fps: Fraction
    first: int
    frames: int

    @classmethod
    def sampled(cls, path: Path, first_s: Fraction = Fraction(0)) -> _Clip:
        info = probe(path)
        length_s = SEARCHED_S if info.duration_s is None else min(max(info.duration_s, 1 / info.fps), SEARCHED_S)
        fps = min(info.fps, SAMPLED_FRAMES / Fraction(length_s))
        return cls(path, fps, int(first_s * fps), SAMPLED_FRAMES)

    def seen(self, portrait: Portrait, watch: _Watch | None = None) -> list[_Seen]:
        """Return the face of each frame in which there is one, the most prominent one or the watched one."""
        pose = _head_degrees(portrait.landmarks)[1]
        found = []
        frames = read_frames_at(self.path, self.fps, start=self.first, stop=self.first + self.frames)
        with stage("detect"), FaceTracker() as tracker:
            for index, frame in enumerate(frames, self.first):
                corner = np.zeros(2, int) if watch is None else watch.low
                part = frame if watch is None else frame[corner[1] : watch.high[1], corner[0] : watch.high[0]]
                points = tracker.track(part)
                if points is None:
                    continue
                points = points + np.append(corner, 0).astype(np.float32)
                if face_width(points) < MIN_FACE_PX or not (watch is None or watch.is_same(points)):
                    continue
                shape, degrees = _head_degrees(points)
                mouth = extract(frame, fit_window(points[None], STORED_MOUTH)[0], STORED_MOUTH.size)
                away_deg = float(np.hypot(*(degrees - pose)))
                found.append(_Seen(index, float(lip_opening(shape)), away_deg, sharpness(mouth), points))
        return found

    def picture(self, seen: _Seen) -> Portrait:
        """Return a frame, its face measured again as a picture's is."""
        frame = next(read_frames_at(self.path, self.fps, start=seen.index, stop=seen.index + 1))
        centre, width = _place(seen.points)
        with stage("detect"):
            others = [(float(np.linalg.norm(_place(face.points)[0] - centre)), face) for face in find_faces(frame)]
        apart, face = min(others, key=lambda other: other[0], default=(np.inf, None))
        return _cut(frame, seen.points if face is None or apart > width / 4 else face.points)


def _place(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return where a face with landmarks (478, 3) is, (2,), and how wide it is, in pixels."""
    low, high = points[:MESH_POINTS, :2].min(axis=0), points[:MESH_POINTS, :2].max(axis=0)
    return (low + high) / 2, face_width(points)


def _head_degrees(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a face's pose-free shape (478, 3) in eye distances, and its yaw and pitch (2,) in degrees."""
    shape, rotation, _, _ = to_canonical(points.astype(np.float64), mean_shape())
    return shape, euler_degrees(rotation)[:2]


def _cut(image: np.ndarray, points: np.ndarray) -> Portrait:
    """Return what is around the face of a picture, so that large ones can be let go."""
    margin = MARGIN * face_width(points)
    low = np.maximum(np.floor(points[:MESH_POINTS, :2].min(axis=0) - margin), 0).astype(int)
    high = np.ceil(points[:MESH_POINTS, :2].max(axis=0) + margin).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]].copy()
    return Portrait(part, (points - np.append(low, 0)).astype(np.float32))
