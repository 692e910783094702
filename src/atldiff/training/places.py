"""Where pictures are cut from a clip: frames, and a reference of the same person at the same head pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.windows import crop, pick_reference

if TYPE_CHECKING:
    from atldiff.data.windows import ClipWindows
    from atldiff.video.window import WindowGeometry

JITTER_PX = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where pictures are cut from a clip.

    frames: (1 + T,) the reference, then successive targets. jitter: (2,) shift of the window in template pixels. flip:
    whether they are mirrored left to right.
    """

    frames: np.ndarray
    jitter: np.ndarray
    flip: bool


def draw_place(clip: ClipWindows, frames: int, random: np.random.Generator, within: range | None = None) -> Place:
    """Draw successive frames of a clip, those `within` where it is given, and a reference at their head pose."""
    first, end = (0, len(clip)) if within is None else (within.start, within.stop)
    start = int(random.integers(first, end - frames + 1))
    reference = pick_reference(clip, start + frames // 2, random)
    wanted = np.concatenate([[reference], np.arange(start, start + frames)])
    jitter = random.integers(-JITTER_PX, JITTER_PX + 1, 2)
    return Place(wanted, jitter, flip=bool(random.random() < 0.5))


def cut_at(
    clip: ClipWindows, place: Place, geometry: WindowGeometry, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a place's pictures, in random colours; returns what `cut_windows` does."""
    images, source, target = crop(clip, place.frames, geometry, place.jitter, flip=place.flip)
    gain = (random.uniform(0.8, 1.2, 3) * random.uniform(0.8, 1.2)).astype(np.float32)
    images = (images.astype(np.float32) / 127.5 - 1) * gain + random.uniform(-0.15, 0.15)
    return np.clip(images, -1, 1), source, target


def cut_windows(
    clip: ClipWindows, frames: int, geometry: WindowGeometry, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut successive frames at a random place of a clip, and a reference at their head pose, in random colours.

    Returns:
        pictures (1 + T, S, S, 3) float32 in [-1, 1], the reference first; points of the reference (K, 2) and of the
        frames (T, K, 2) in their pixels.
    """
    return cut_at(clip, draw_place(clip, frames, random), geometry, random)
