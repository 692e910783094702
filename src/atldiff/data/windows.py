"""Prepared clips as the renderer needs them: windows, points in window pixels, references at the same head pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.landmarks.topology import lip_opening
from atldiff.video.window import RIGID_POINTS, STORED_WINDOW, WindowGeometry, apply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atldiff.data.faces import ClipFaces
    from atldiff.data.manifest import Manifest, ManifestEntry
    from atldiff.data.mouths import ClipMouths

SAME_POSE_PX = 2.0
"""Largest mean distance of rigid points, in window pixels, between a reference and a target at the same pose."""
CLOSED_SHARE, OPEN_SHARE = 0.35, 0.2
"""Shares of references drawn from the frames with the most closed and the widest open lips: a portrait may smile."""
MIN_APART_FRAMES = 4


@dataclass(frozen=True, slots=True)
class ClipWindows:
    """What is kept in memory of one clip; its windows stay on disk."""

    name: str
    source: str
    identity: str
    file: Path
    points: np.ndarray
    """(T, K, 2) float32 in stored-window pixels."""
    rigid: np.ndarray
    """(T, 13, 2) float32 in stored-window pixels."""
    opening: np.ndarray
    """(T,) float32 lip opening in window pixels."""

    def __len__(self) -> int:
        return len(self.opening)

    def windows(self, frames: np.ndarray) -> np.ndarray:
        """Read windows (len(frames), 96, 96, 3) uint8."""
        with safe_open(str(self.file), "numpy") as file:
            tensor = file.get_slice("windows")
            low = int(frames[0])
            if np.array_equal(frames, np.arange(low, low + len(frames))):
                return tensor[low : low + len(frames)]
            return np.concatenate([tensor[int(i) : int(i) + 1] for i in frames])


def load_clip(manifest: Manifest, entry: ManifestEntry, indices: np.ndarray) -> ClipWindows:
    """Load the landmarks of one prepared clip; `indices` (K,) are the dense points to keep."""
    path = manifest.tensors(entry)
    with safe_open(str(path), "numpy") as file:
        points = apply(file.get_tensor("matrix").astype(np.float64), file.get_tensor("points")[..., :2])
    return ClipWindows(
        name=entry.record.name,
        source=entry.record.source,
        identity=entry.identity,
        file=path,
        points=points[:, indices].astype(np.float32),
        rigid=points[:, list(RIGID_POINTS)].astype(np.float32),
        opening=lip_opening(points).astype(np.float32),
    )


def same_pose(clip: ClipWindows | ClipMouths, frame: int) -> np.ndarray:
    """Return the frames at the head pose of `frame` and some way off it; at least the nearest pose."""
    distance = np.linalg.norm(clip.rigid - clip.rigid[frame], axis=-1).mean(axis=-1)  # (T,)
    away = np.abs(np.arange(len(clip)) - frame) >= MIN_APART_FRAMES
    near = np.flatnonzero(away & (distance < SAME_POSE_PX))
    return near if len(near) else np.array([np.where(away, distance, np.inf).argmin()])


def pick_reference(clip: ClipWindows | ClipMouths, frame: int, random: np.random.Generator) -> int:
    """Draw a reference frame at the target's pose, often one with closed lips, at times one with open lips."""
    frames = same_pose(clip, frame)
    kind, extreme = random.random(), max(1, len(frames) // 5)
    if kind < CLOSED_SHARE + OPEN_SHARE:
        by_opening = frames[np.argsort(clip.opening[frames])]
        frames = by_opening[:extreme] if kind < CLOSED_SHARE else by_opening[-extreme:]
    return int(random.choice(frames))


def clip_weights(clips: Sequence[ClipWindows | ClipFaces | ClipMouths]) -> np.ndarray:
    """Return each clip's probability: people by the square root of their clips, one person's clips equally."""
    counts: dict[str, int] = {}
    for clip in clips:
        counts[clip.identity] = counts.get(clip.identity, 0) + 1
    weights = np.array([counts[clip.identity] ** -0.5 for clip in clips])
    return weights / weights.sum()


def mirrored(points: np.ndarray, side: int) -> np.ndarray:
    """Return where points (..., 2) lie in a picture of `side` pixels that is flipped left to right."""
    return points * np.array([-1, 1], np.float32) + np.array([side - 1, 0], np.float32)


def crop_map(geometry: WindowGeometry, jitter: np.ndarray, *, flip: bool) -> np.ndarray:
    """Return the map (2, 3) float32 from stored-window pixels to those of what `crop` cuts."""
    x, y = _corner(geometry, jitter)
    across = [-1, 0, geometry.side - 1 + x] if flip else [1, 0, -x]
    return np.array([across, [0, 1, -y]], np.float32)


def _corner(geometry: WindowGeometry, jitter: np.ndarray) -> np.ndarray:
    wanted = np.asarray(geometry.origin) - np.asarray(STORED_WINDOW.origin) + jitter
    return np.clip(wanted, 0, STORED_WINDOW.side - geometry.side)


def crop(
    clip: ClipWindows, frames: np.ndarray, geometry: WindowGeometry, jitter: np.ndarray, *, flip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a window out of stored windows.

    frames: (1 + T,) the reference, then the targets. jitter: (2,) shift of the window in pixels.

    Returns:
        images (1 + T, S, S, 3) uint8; points of the reference (K, 2) and the targets (T, K, 2) in its pixels.
    """
    corner = _corner(geometry, jitter)
    images = np.concatenate([clip.windows(frames[:1]), clip.windows(frames[1:])])
    images = images[:, corner[1] : corner[1] + geometry.side, corner[0] : corner[0] + geometry.side]
    points = clip.points[frames] - corner.astype(np.float32)
    if flip:
        images = images[:, :, ::-1]
        points = mirrored(points, geometry.side)
    return images, points[0], points[1:]
