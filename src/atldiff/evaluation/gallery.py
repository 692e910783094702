"""Pictures for the report's page: real and generated frames beside one another, still and moving."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.evaluation.page import GalleryItem
from atldiff.evaluation.protocol import CROP
from atldiff.timebase import FPS
from atldiff.video.window import extract
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from atldiff.evaluation.footage import Sight

STRIP_FRAMES = 10
STRIP_SIDE = 112
LONGEST_S = 12
"""The page shows this much of a clip."""
VIDEO_QUALITY = 26


def show(name: str, row: str, real: Sight, made: Sight, caption: str) -> GalleryItem:
    """Return what a page shows of a clip.

    A strip of ten moments, real above generated, and a video with both side by side and the generated one's sound.
    """
    frames = list(_pairs(real, made))
    times = np.linspace(0, len(frames) - 1, STRIP_FRAMES).astype(int)
    shrink = lambda crop: cv2.resize(crop, (STRIP_SIDE, STRIP_SIDE), interpolation=cv2.INTER_AREA)  # noqa: E731
    strip = np.vstack([np.hstack([shrink(frames[t][side]) for t in times]) for side in (0, 1)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.mp4"
        sound = made.path if made.has_sound else None
        duration = Fraction(len(frames), FPS)
        with VideoWriter(
            path, size=(CROP, 2 * CROP), fps=FPS, audio=sound, duration=duration, quality=VIDEO_QUALITY
        ) as writer:
            for pair in frames:
                writer.write(np.hstack(pair))
        video = path.read_bytes()
    poster = frames[len(frames) // 3]
    return GalleryItem(name, row, _jpeg(strip), video, caption, poster_jpeg=_jpeg(np.hstack(poster)))


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return encoded.tobytes() if done else b""


def _pairs(real: Sight, made: Sight) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    for index, (wanted, shown) in enumerate(zip(real.frames(), made.frames(), strict=False)):
        if index == LONGEST_S * FPS:
            return
        yield extract(wanted, real.to_crop, CROP), extract(shown, made.to_crop, CROP)
