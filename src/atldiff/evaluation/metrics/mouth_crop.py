"""Mouths in the skull's frame: where the rigid points of the face stand still and only lips and jaw move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER, lip_opening
from atldiff.video.window import WindowGeometry, apply, extract, fit_window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

EXTENT, ORIGIN = 64, (32, 28)
"""Side and corner of the crop in template pixels: 0.89 eye distances around the mouth."""
LARGEST_PX = 144
"""Side of the largest crop; the eyes' outer corners are then 162 px apart, and a mouth at rest is about 80 px wide."""
SMOOTH_FRAMES = 0.7
"""Sigma over time of the skull's place: what trembles in the detector is not the mouth's."""
OPEN = 0.06
"""Lip opening, in eye distances, from which there is a cavity to look into."""
SHUT = 0.025
"""Lip opening below which lips touch."""
RIM = 0.012
"""The edge of the lips, in eye distances: it belongs neither to the cavity nor to the lip."""

_EYES = 72 / EXTENT
"""Distance of the outer eye corners over the crop's side."""


@dataclass(frozen=True)
class Mouths:
    """The mouth crops of one video, in order of time.

    frames: (T, S, S, 3) uint8 RGB, stabilised on the skull. inner, outer: (T, 20, 2) lip contours in crop pixels,
    closed, from the right corner over the upper lip. opening: (T,) gap of the inner lips in eye distances, as seen in
    the crop. seen: (T,), frames in which a face was found; the others are of no use.
    """

    frames: NDArray[np.uint8]
    inner: NDArray[np.float64]
    outer: NDArray[np.float64]
    opening: NDArray[np.float64]
    seen: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.frames)

    def first(self, count: int) -> Mouths:
        """Return the first frames; what has no more of them is returned as it is."""
        if count >= len(self):
            return self
        frames, seen = self.frames[:count], self.seen[:count]
        return Mouths(frames, self.inner[:count], self.outer[:count], self.opening[:count], seen)

    @property
    def eye_px(self) -> float:
        """The distance of the outer eye corners in crop pixels, which is the unit of lengths."""
        return _EYES * self.frames.shape[1]

    @cached_property
    def luma(self) -> NDArray[np.float32]:
        """The frames' luma, (T, S, S) in levels."""
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames]
        return np.array(grey, np.float32).reshape(self.frames.shape[:3])

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which frames show an open mouth, (T,)."""
        return self.seen & (self.opening >= OPEN)

    @property
    def shut(self) -> NDArray[np.bool_]:
        """Which frames show a shut mouth, (T,)."""
        return self.seen & (self.opening < SHUT)

    def cavity(self, index: int) -> NDArray[np.bool_]:
        """Return what lies inside the inner lips of a frame, without their edge, (S, S)."""
        return inside(self.inner[index], self.frames.shape[1], RIM * self.eye_px)


def crop_side(points: NDArray[np.floating]) -> int:
    """Return the side of the crops, in pixels, at which a video's own pixels are neither enlarged nor many in one.

    points: (T, 478, D >= 2) pixels of the real video. At most 144, and at least 32; a generated video is measured at
    the real one's, so that a larger picture is no sharper one.
    """
    maps = fit_window(points, WindowGeometry(EXTENT, ORIGIN))
    pixels = 1 / float(np.median(np.hypot(maps[:, 0, 0], maps[:, 1, 0])))  # of the picture, a template pixel
    return int(np.clip(round(EXTENT * pixels), EXTENT // 2, LARGEST_PX))


def cut_mouths(
    frames: Iterable[NDArray[np.uint8]], points: NDArray[np.floating], side: int, seen: NDArray[np.bool_] | None = None
) -> Mouths:
    """Cut the mouth out of every frame.

    frames: (H, W, 3) uint8 RGB each; those beyond the points are left. points: (T, 478, D >= 2) finite pixels, frames
    without a face interpolated. side: of the crops, from `crop_side`. seen: (T,), frames with a face; all when left
    out.

    Raises:
        ValueError: no frame.
    """
    maps = fit_window(points, WindowGeometry(side, ORIGIN, side / EXTENT), SMOOTH_FRAMES)
    cut = [extract(frame, matrix, side) for frame, matrix in zip(frames, maps, strict=False)]
    if not cut:
        raise ValueError("frames: got none, expected at least one")
    count = len(cut)
    flat = apply(maps, points[..., :2].astype(np.float64))[:count]
    return Mouths(
        frames=np.stack(cut),
        inner=flat[:, LIPS_INNER],
        outer=flat[:, LIPS_OUTER],
        opening=lip_opening(flat) / (_EYES * side),
        seen=np.ones(count, bool) if seen is None else seen[:count],
    )


def inside(contour: NDArray[np.floating], side: int, margin: float = 0.0) -> NDArray[np.bool_]:
    """Return which pixels lie inside a closed contour and at least `margin` pixels from it, (side, side).

    contour: (N, 2) pixels (x, y). A margin below 0 reaches beyond the contour.
    """
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(contour * 16).astype(np.int32)], 1, shift=4)
    if margin == 0:
        return mask > 0
    if margin > 0:
        return cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > margin
    return cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) < -margin
