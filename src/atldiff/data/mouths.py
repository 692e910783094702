"""Prepared clips as a zoomed renderer needs them: the mouth at the video's own sharpness, and how sharp that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.data.clip import SMOOTH_FRAMES
from atldiff.data.stored import read_stored, stored_offsets
from atldiff.data.windows import clip_weights, mirrored, same_pose
from atldiff.errors import DataError
from atldiff.landmarks.topology import lip_opening
from atldiff.video.window import RIGID_POINTS, STORED_MOUTH, apply, fit_window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atldiff.data.manifest import Manifest, ManifestEntry
    from atldiff.video.window import WindowGeometry

SHARP_MOUTH_PX = (40.0, 72.0)
"""Widths of a mouth in the video between which a clip becomes sharp, for windows of the stored scale."""
SHARP_DETAIL = (0.16, 0.22)
"""Shares of fine detail (`video.detail.sharpness`) between which it does."""
BLURRED_SHARE = 0.1
"""Weight of a clip without sharpness among the others when clips are drawn."""


@dataclass(frozen=True, slots=True)
class ClipMouths:
    """What is kept in memory of one clip; its pictures stay on disk."""

    name: str
    source: str
    identity: str
    file: Path
    points: np.ndarray
    """(T, K, 2) float32 in stored-window pixels."""
    rigid: np.ndarray
    """(T, 13, 2) float32 in template pixels."""
    opening: np.ndarray
    """(T,) float32 lip opening in template pixels."""
    offsets: np.ndarray
    """(T + 1,) int64 where each frame's JPEG starts."""
    sharp: float
    """How far its pictures are to be believed about detail, 0 to 1."""

    def __len__(self) -> int:
        return len(self.opening)

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """Read frames (F,) as pictures (F, 160, 176, 3) uint8 RGB.

        Raises:
            DataError: a picture cannot be decoded.
        """
        return read_stored(self.file, "mouths", self.offsets, frames, STORED_MOUTH.size)


def load_mouths(
    manifest: Manifest, entry: ManifestEntry, indices: np.ndarray, scale: float = STORED_MOUTH.scale
) -> ClipMouths:
    """Load the landmarks of one prepared clip; `indices` (K,) are the dense points to keep.

    scale: of the window that is cut out of it, which decides what is sharp enough.

    Raises:
        DataError: the clip was prepared before mouths were kept.
    """
    path, record = manifest.tensors(entry), entry.record
    with safe_open(str(path), "numpy") as file:
        if "mouths" not in file.keys():  # noqa: SIM118 - not a dict
            raise DataError(f"data {path}: no mouths; expected a folder of this version: run `atldiff prepare` again")
        tracked = file.get_tensor("points").astype(np.float64)
        sizes = file.get_tensor("mouth_sizes")
    points = apply(fit_window(tracked, STORED_MOUTH, SMOOTH_FRAMES), tracked[..., :2])
    rigid = points[:, list(RIGID_POINTS)] / STORED_MOUTH.scale
    return ClipMouths(
        name=record.name,
        source=record.source,
        identity=entry.identity,
        file=path,
        points=points[:, indices].astype(np.float32),
        rigid=rigid.astype(np.float32),
        opening=(lip_opening(points) / STORED_MOUTH.scale).astype(np.float32),
        offsets=stored_offsets(sizes),
        sharp=sharp_share(record.mouth_px, record.sharpness, scale),
    )


def sharp_share(mouth_px: float, sharpness: float, scale: float = STORED_MOUTH.scale) -> float:
    """Return how far a clip is to be believed about detail in windows of a scale, 0 to 1, from what its record says."""
    zoomed_px = mouth_px * STORED_MOUTH.scale / scale
    parts = [
        np.clip((value - low) / (high - low), 0, 1)
        for value, (low, high) in ((zoomed_px, SHARP_MOUTH_PX), (sharpness, SHARP_DETAIL))
    ]
    return float(parts[0] * parts[1])


def mouth_weights(clips: Sequence[ClipMouths]) -> np.ndarray:
    """Return each clip's probability: as `clip_weights`, and the sharper the more."""
    weights = clip_weights(clips) * np.array([BLURRED_SHARE + (1 - BLURRED_SHARE) * clip.sharp for clip in clips])
    return weights / weights.sum()


def pick_more(clip: ClipMouths, frame: int, count: int, random: np.random.Generator) -> list[int]:
    """Draw further references for a target: the widest mouth at its pose first, then any frame."""
    if not count:
        return []
    frames = same_pose(clip, frame)
    widest = frames[np.argsort(clip.opening[frames])[-max(1, len(frames) // 10) :]]
    return [int(random.choice(widest)), *(int(random.integers(len(clip))) for _ in range(count - 1))]


def cut(
    clip: ClipMouths, frames: np.ndarray, geometry: WindowGeometry, jitter: np.ndarray, *, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a window out of stored ones, reduced where its scale is a whole part of theirs.

    frames: (F,). jitter: (2,) shift of the window in stored pixels.

    Returns:
        pictures (F, H, W, 3) uint8 and points (F, K, 2) in their pixels.
    """
    (x, y), (width, height), parts = corner(geometry, jitter), geometry.size, reduction(geometry)
    images = clip.pictures(frames)[:, y : y + parts * height, x : x + parts * width]
    points = clip.points[frames] - np.array([x, y], np.float32)
    if parts > 1:
        cells = images.reshape(len(images), height, parts, width, parts, 3).mean((2, 4), dtype=np.float32)
        images = np.rint(cells).astype(np.uint8)
        points = (points - np.float32((parts - 1) / 2)) / parts  # of a pixel's middle
    if flip:
        return np.ascontiguousarray(images[:, :, ::-1]), mirrored(points, width)
    return images, points


def cut_map(geometry: WindowGeometry, jitter: np.ndarray, *, flip: bool) -> np.ndarray:
    """Return the map (2, 3) float32 from stored-mouth pixels to those of what `cut` cuts at the stored scale."""
    x, y = corner(geometry, jitter)
    across = [-1, 0, geometry.side - 1 + x] if flip else [1, 0, -x]
    return np.array([across, [0, 1, -y]], np.float32)


def corner(geometry: WindowGeometry, jitter: np.ndarray) -> tuple[int, int]:
    """Return where a window's corner lies in the stored one, in pixels; it is kept inside."""
    wanted = (np.asarray(geometry.origin) - np.asarray(STORED_MOUTH.origin)) * STORED_MOUTH.scale + jitter
    size = reduction(geometry) * np.array(geometry.size)
    x, y = np.clip(np.rint(wanted).astype(int), 0, np.array(STORED_MOUTH.size) - size)
    return int(x), int(y)


def reduction(geometry: WindowGeometry) -> int:
    """Return the stored pixels a pixel of a window, across and down."""
    return round(STORED_MOUTH.scale / geometry.scale)
