"""Opening a portrait: a picture, or the frame of a video, with its landmarks."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from atldiff.errors import FaceNotFound, MediaError
from atldiff.landmarks.detect import detect
from atldiff.landmarks.given import lift
from atldiff.landmarks.parted import part_lips
from atldiff.landmarks.points_file import read_points
from atldiff.stages import stage
from atldiff.types import Portrait
from atldiff.video.background import bled
from atldiff.video.read import is_video, read_rgba_frames
from atldiff.video.still import on_grey, read_rgba

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    PortraitSource = str | os.PathLike[str] | np.ndarray | Image.Image | Portrait
    GivenLandmarks = str | os.PathLike[str] | np.ndarray

_log = logging.getLogger(__name__)

Size: TypeAlias = "int | Literal['full'] | None"
"""Longest side of a video in pixels, `full` for that of what is shown, None for that up to `LARGEST_SIDE`."""

LARGEST_SIDE = 1920
"""Pixels of a video's longest side where no size was asked for: its squares stay within H.264 level 5.1, beyond which
few players go."""

FIRST_FRAMES = 50
"""Frames of a video that are searched for a face before giving up."""
_STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".hif"})


def open_portrait(
    source: PortraitSource, face: int | None = None, frame: int | None = None, landmarks: GivenLandmarks | None = None
) -> Portrait:
    """Return a portrait with its landmarks; the arguments as for `TalkingHead.open_portrait`.

    Raises:
        FaceNotFound: no face, or no face of that number. MediaError: not a picture. ValueError: a frame of a picture,
        or landmarks that cannot be a face's.
    """
    if landmarks is not None and face is not None:
        raise ValueError(f"face: got {face} with landmarks, which say which face it is: leave one of them out")
    if isinstance(source, Portrait):
        return source if landmarks is None else placed(source.image, source.alpha, landmarks)
    path = video_path(source)
    if path is not None and landmarks is None:
        return _video_portrait(path, face, frame)
    if path is not None:
        _, image, alpha = next(searched_frames(path, frame or 0), (0, None, None))
        if image is None:
            raise MediaError(f"portrait {path}: no frame")
        return placed(image, alpha, landmarks)
    if frame is not None:
        raise ValueError(f"frame: got {frame} with a still picture; expected a video as portrait")
    if landmarks is not None:
        return placed(*read_rgba(source), landmarks)  # pyright: ignore[reportArgumentType]
    return detected(*read_rgba(source), face)  # pyright: ignore[reportArgumentType]


def placed(image: np.ndarray, alpha: np.ndarray | None, landmarks: GivenLandmarks | None) -> Portrait:
    """Return a picture (H, W, 3) and its alpha as a portrait whose landmarks were given, as `lift` takes them.

    Raises:
        ValueError: none that can be a face's. MediaError: no such file.
    """
    size = (image.shape[0], image.shape[1])
    points = read_points(landmarks, size) if isinstance(landmarks, (str, os.PathLike)) else np.asarray(landmarks)
    return Portrait(image if alpha is None else bled(image, alpha), lift(points, size), alpha)


def video_path(source: PortraitSource) -> Path | None:
    """Return the path of a source that is a video file, None for all else."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source)
    return path if path.suffix.lower() not in _STILL_SUFFIXES and is_video(path) else None


def resized(portrait: Portrait, size: Size) -> Portrait:
    """Return the portrait with its longest side at `size` pixels (both sides even); itself where it may stay.

    Raises:
        ValueError: neither 64 to 8192 pixels nor `full` nor None.
    """
    height, width = portrait.image.shape[:2]
    if size == "full" or (size is None and max(height, width) <= LARGEST_SIDE):
        return portrait
    size = LARGEST_SIDE if size is None else size
    if isinstance(size, str) or not 64 <= size <= 8192:
        raise ValueError(f"size: got {size!r}, expected 64 to 8192 pixels, or full")
    import cv2

    ratio = size / max(height, width)
    wanted = (max(16, 2 * round(width * ratio / 2)), max(16, 2 * round(height * ratio / 2)))
    kind = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    image = cv2.resize(portrait.image, wanted, interpolation=kind)
    alpha = None if portrait.alpha is None else cv2.resize(portrait.alpha, wanted, interpolation=kind).astype(np.uint8)
    factor = np.array([wanted[0] / width, wanted[1] / height, wanted[0] / width], np.float32)
    return Portrait(
        image.astype(np.uint8), (portrait.landmarks * factor).astype(np.float32), alpha, portrait.references
    )


def say_if_smaller(own: tuple[int, int], made: tuple[int, int]) -> None:
    """Say that a video is made smaller than what it shows, where nobody asked for it. own, made: (height, width)."""
    if max(made) < max(own):
        _log.warning(
            "size: made at %dx%d instead of the portrait's %dx%d, which few players show; size full keeps it",
            *(*made[::-1], *own[::-1]),
        )


def searched_frames(path: Path, frame: int | None) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Yield number, picture and alpha of the frames of a video that are searched for a face: one, or the first 50.

    Raises:
        MediaError: not a video. ValueError: it has no such frame.
    """
    if frame is not None and frame < 0:
        raise ValueError(f"frame: got {frame}, expected 0 or more")
    index = -1
    for index, (image, alpha) in enumerate(read_rgba_frames(path)):
        if frame is None or index == frame:
            yield index, image, alpha
        if index == (FIRST_FRAMES - 1 if frame is None else frame):
            return
    if frame is not None:
        raise ValueError(f"frame: got {frame}, but {path} has {index + 1} frames")


def _video_portrait(path: Path, face: int | None, frame: int | None) -> Portrait:
    missing, searched = FaceNotFound(f"portrait {path}: no frame"), 0
    for _, image, alpha in searched_frames(path, frame):
        try:
            return detected(image, alpha, face)
        except FaceNotFound as error:
            missing, searched = error, searched + 1
    if frame is None and face is None:
        raise FaceNotFound(f"portrait {path}: no face found in its first {searched} frames; expected one, eyes open")
    raise missing


def detected(image: np.ndarray, alpha: np.ndarray | None, face: int | None) -> Portrait:
    """Return a picture (H, W, 3) and its alpha as a portrait; a face is looked for on grey, never in hidden colours."""
    with stage("detect"):
        if alpha is None:
            return Portrait(image, part_lips(image, detect(image, face)))
        seen = on_grey(image, alpha)
        return Portrait(bled(image, alpha), part_lips(seen, detect(seen, face)), alpha)
