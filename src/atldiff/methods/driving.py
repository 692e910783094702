"""A driving video: the face that moves a portrait's eyes, brows and head while the sound moves its mouth."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.errors import FaceNotFound, MediaError
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.edit import at_fps
from atldiff.landmarks.geometry import fill_gaps, to_canonical_in_parts
from atldiff.landmarks.motion import GaussianSmoother
from atldiff.landmarks.rest import neutral_shape
from atldiff.landmarks.rotations import nearest_rotations
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import POINTS
from atldiff.landmarks.visible import refuse_still
from atldiff.methods.portrait import FIRST_FRAMES
from atldiff.timebase import FPS
from atldiff.types import TRACK_SUFFIXES, LandmarkTrack, is_track
from atldiff.video.read import is_video, probe, read_frames_at
from atldiff.video.still import check_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.types import Controls

    DrivingSource = str | os.PathLike[str] | LandmarkTrack

LEAST_SHARE = 0.5
"""Share of all frames that must show a face; the others are interpolated."""
POSE_SIGMA_FRAMES = 1.5
"""Gaussian applied to the head's pose over time, in frames at 25 a second: alone each trembles by half a degree."""


def open_driving(
    source: DrivingSource, controls: Controls, *, progress: Callable[[int, int], None] | None = None
) -> LandmarkTrack:
    """Return a driving track at 25 frames a second: of a video, of a track's file, or a track as it is.

    progress: called with (done, all) frames while a video is tracked.

    Raises:
        ValueError: a face that is to be still, a file that is no landmark track, or a track without frames.
        MediaError, FaceNotFound: as `track_video`.
    """
    refuse_still(controls)
    if not isinstance(source, (str, os.PathLike, LandmarkTrack)):
        raise ValueError(f"driving: got {type(source).__name__}, expected a path or a LandmarkTrack")
    if isinstance(source, LandmarkTrack):
        track = source
    elif is_track(source):
        track = LandmarkTrack.load(source)
    else:
        track = track_video(source, progress=progress)
    if not len(track):
        named = "" if isinstance(source, LandmarkTrack) else f" {source}"
        raise ValueError(f"driving track{named}: got no frames, expected at least one")
    return at_fps(track, Fraction(FPS))


def check_video(path: str | os.PathLike[str]) -> None:
    """Raise unless a file can be a driving video, which takes no time.

    Raises:
        MediaError: a file that is missing or empty, or a still picture or sound.
    """
    check_file(Path(path), "driving video")
    if not is_video(path):
        raise MediaError(
            f"driving video {path}: got a file without moving pictures, expected a video such as mp4, or a landmark "
            f"track ({' or '.join(TRACK_SUFFIXES)})"
        )


def track_video(
    path: str | os.PathLike[str],
    *,
    fps: Fraction | int | None = FPS,
    progress: Callable[[int, int], None] | None = None,
) -> LandmarkTrack:
    """Track the face of a video over time; of several faces, the most prominent one.

    fps: frames a second, by the video's timestamps; None takes its own mean rate. The neutral shape is the face at rest
    over the whole video; the pose is smoothed. Frames without a face are interpolated. Pictures are let go as they are
    seen: what is held are landmarks, 6 kB a frame.

    Raises:
        MediaError: not a video. FaceNotFound: no face in the first 50 frames, or in fewer than half of all.
    """
    check_video(path)
    info = probe(path)
    rate = Fraction(info.fps if fps is None else fps)
    stated = 0 if info.duration_s is None else -(-info.duration_s * rate // 1)
    points: list[np.ndarray | None] = []
    size = (0, 0)
    with FaceTracker() as tracker:
        for frame in read_frames_at(path, rate):
            size = (frame.shape[0], frame.shape[1])
            points.append(tracker.track(frame))
            if len(points) == FIRST_FRAMES and all(each is None for each in points):
                break
            if progress:
                progress(len(points), max(len(points), int(stated)))
    seen = np.array([each is not None for each in points])
    if not seen[:FIRST_FRAMES].any():
        raise FaceNotFound(
            f"driving video {path}: no face found in its first {min(len(points), FIRST_FRAMES)} frames; expected one "
            "face, upright and large enough: cut the video to where it is seen"
        )
    if seen.mean() < LEAST_SHARE:
        raise FaceNotFound(
            f"driving video {path}: a face in {seen.sum()} of {len(seen)} frames, expected at least half of them: cut "
            "the video to where it is seen"
        )
    return _canonical_track(_filled(points, seen), seen, size, rate)


def _filled(points: list[np.ndarray | None], seen: np.ndarray) -> np.ndarray:
    """Return the points (T, 478, 3) float32 with frames that show no face interpolated, at the ends held."""
    missing = np.zeros((POINTS, 3), np.float32)
    known = np.stack([missing if found is None else found.astype(np.float32) for found in points])
    return known if seen.all() else fill_gaps(known, seen)


def _canonical_track(points: np.ndarray, seen: np.ndarray, size: tuple[int, int], fps: Fraction) -> LandmarkTrack:
    fitted = to_canonical_in_parts(points, mean_shape())
    shapes, rotation, scale, translation = (values.astype(np.float32, copy=False) for values in fitted)
    neutral = neutral_shape(shapes[seen])
    return LandmarkTrack(
        neutral=neutral,
        displacements=shapes - neutral,
        rotation=nearest_rotations(_smooth(rotation.reshape(-1, 9), fps).reshape(-1, 3, 3)).astype(np.float32),
        translation=_smooth(translation, fps),
        scale=_smooth(scale[:, None], fps)[:, 0],
        fps=fps,
        size=size,
    )


def _smooth(rows: np.ndarray, fps: Fraction) -> np.ndarray:
    smoother = GaussianSmoother(POSE_SIGMA_FRAMES * float(fps / FPS))
    return np.concatenate([smoother.push(rows), smoother.flush()])
