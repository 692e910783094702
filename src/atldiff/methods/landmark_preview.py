"""Landmarks drawn over the portrait that they move: eyes, brows, lips, nose and the face's outline, in thin lines."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.errors import MediaError
from atldiff.landmarks.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
    NOSE,
    OVAL,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from atldiff.types import LandmarkTrack

STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
DIMMED = 0.5
"""Part of the portrait's light that is left under the lines."""
LINE_SHARE = 1 / 170
"""Width of a line in widths of the face."""
_SHIFT = 4  # binary digits of a pixel's parts, as OpenCV takes them
_NOSE_BRIDGE = np.array([168, 6, 197, 195, 5, 4])
# Points, whether the line is closed, and its colour.
_LINES: tuple[tuple[np.ndarray, bool, tuple[int, int, int]], ...] = (
    (OVAL, True, (225, 225, 225)),
    (_NOSE_BRIDGE, False, (170, 170, 170)),
    (NOSE, False, (170, 170, 170)),
    (BROW_RIGHT, True, (250, 200, 90)),
    (BROW_LEFT, True, (250, 200, 90)),
    (EYE_RIGHT, True, (120, 225, 255)),
    (EYE_LEFT, True, (120, 225, 255)),
    (LIPS_OUTER, True, (255, 120, 140)),
    (LIPS_INNER, True, (255, 190, 200)),
)
_IRISES = ((IRIS_RIGHT, (120, 255, 150)), (IRIS_LEFT, (120, 255, 150)))


def dimmed(picture: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 in less light, for lines to show."""
    return cv2.convertScaleAbs(picture, alpha=DIMMED)


def draw_landmarks(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 with landmarks (478, 2 or 3), in its pixels, drawn over it as lines."""
    canvas = picture.copy()
    places = np.rint(np.clip(points[:, :2], -1e6, 1e6) * 2**_SHIFT).astype(np.int32)
    width = max(1, round(float(np.linalg.norm(points[234, :2] - points[454, :2])) * LINE_SHARE))
    for line, closed, colour in _LINES:
        cv2.polylines(canvas, [places[line]], closed, colour, width, cv2.LINE_AA, _SHIFT)
    for iris, colour in _IRISES:
        radius = float(np.linalg.norm(points[iris[1:], :2] - points[iris[0], :2], axis=-1).mean())
        x, y = places[iris[0]].tolist()
        cv2.circle(canvas, (x, y), round(radius * 2**_SHIFT), colour, width, cv2.LINE_AA, _SHIFT)
    return canvas


def drawn_frames(track: LandmarkTrack, pictures: Iterable[np.ndarray] | np.ndarray) -> Iterator[np.ndarray]:
    """Yield the frames of a track drawn, (H, W, 3) uint8.

    pictures: what is under each frame, or one picture (H, W, 3) under all; they are dimmed. Of the track's size.
    """
    still = dimmed(pictures) if isinstance(pictures, np.ndarray) else None
    behind = iter(()) if still is not None else iter(pictures)
    for frame in range(len(track)):
        under = still if still is not None else dimmed(next(behind))
        yield draw_landmarks(under, track.slice(frame, frame + 1).points()[0])


def write_preview(
    path: str | os.PathLike[str],
    track: LandmarkTrack,
    pictures: Iterable[np.ndarray] | np.ndarray,
    *,
    sound: str | os.PathLike[str] | None = None,
) -> None:
    """Write a track drawn over its portrait, or over a video's frames: a video, or its middle frame as a picture.

    path: a video, as of `VideoWriter`, or .png or .jpg. sound: a file whose sound the video has.

    Raises:
        MediaError: it cannot be written there.
    """
    from atldiff.video.write import VideoWriter

    if Path(path).suffix.lower() in STILL_SUFFIXES:
        _write_still(Path(path), track, pictures)
        return
    frames = drawn_frames(track, pictures)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"preview {path}: got a track without frames, expected at least one")
    height, width = first.shape[:2]
    duration = len(track) / track.fps
    with VideoWriter(path, size=(height, width), fps=track.fps, audio=sound, duration=duration) as writer:
        for frame in chain([first], frames):
            writer.write(frame)


def _write_still(path: Path, track: LandmarkTrack, pictures: Iterable[np.ndarray] | np.ndarray) -> None:
    from PIL import Image

    from atldiff.files import replacing

    frame = len(track) // 2
    picture = pictures
    if not isinstance(picture, np.ndarray):
        picture = next(each for index, each in enumerate(pictures) if index == frame)
    drawn = draw_landmarks(dimmed(picture), track.slice(frame, frame + 1).points()[0])
    with replacing(path) as partial:
        Image.fromarray(drawn).save(partial, quality=92)


def beside(frame: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return a frame (H, W, 3 or 4) with a drawing (H, W, 3) on its right, of the frame's channels."""
    if frame.shape[2] == 4:
        drawn = np.dstack([drawn, np.full(drawn.shape[:2], 255, np.uint8)])
    return np.hstack([frame, drawn])
