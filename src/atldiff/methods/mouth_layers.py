"""The two layers of a mouth in a renderer's window: warped lips, and what is behind them.

All renderers of the window that know of layers start from this prior, whatever their network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.video.cavity import MouthLayers
from atldiff.video.warp import SOFTENING_PX2, warp_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.video.window import WindowGeometry

HELD = ((4.0, 6.0), (124.0, 126.0))
"""Corners, in template pixels, of the rectangle whose border the warp of any window leaves in place."""
BORDER_PX = 3.0
"""Template pixels over which the mask of a layered window fades towards its border."""
BEHIND_CHANNELS = 4
"""Channels of what is behind the lips: its picture 3, and where it was seen 1."""


@dataclass(frozen=True, slots=True)
class LayeredPrior:
    """What N frames are without a network, float32.

    prior: (N, 3, H, W) in [-1, 1], the warped lips over what is behind them. field: (N, 2, H, W) the lips' displacement
    in window pixels, backward. behind: (N, 4, H, W), what is behind the lips, in [-1, 1], and where a picture has shown
    it, in [0, 1]. seen: (N, H, W), how much of that the lips leave to be seen, in [0, 1].
    """

    prior: np.ndarray
    field: np.ndarray
    behind: np.ndarray
    seen: np.ndarray


def to_template(geometry: WindowGeometry) -> np.ndarray:
    """Return the map (2, 3) of a window's pixels to the template's."""
    (x, y), scale = geometry.origin, geometry.scale
    return np.array([[1 / scale, 0, x], [0, 1 / scale, y]], np.float64)


def window_layers(
    pictures: np.ndarray | Sequence[np.ndarray], inner: np.ndarray, chin: np.ndarray, geometry: WindowGeometry
) -> MouthLayers:
    """Part pictures of one person into the layers of a mouth: the portrait first, then references in any order.

    pictures: (H, W, 3) uint8 each, in the window of `geometry`. inner: (N, 20, 2) the points of their inner lips, and
    chin: (N, C, 2) of their chins, in their pixels.
    """
    matrix = to_template(geometry)
    first, *others = (
        MouthLayers.prepare(picture, lips, below.mean(0), matrix)
        for picture, lips, below in zip(pictures, inner.astype(np.float64), chin.astype(np.float64), strict=True)
    )
    return first.with_references(others)


def layered_prior(
    layers: Sequence[MouthLayers],
    moved: np.ndarray,
    still: np.ndarray,
    inner: np.ndarray,
    chin: np.ndarray,
    geometry: WindowGeometry,
) -> LayeredPrior:
    """Move portraits' layers to the landmarks of N frames.

    layers: of each portrait, of as many successive frames as the others. moved, still: (N, K, 2) control points of the
    frames and of their portraits, inner (N, 20, 2) and chin (N, C, 2) of the frames, in window pixels.
    """
    frames = len(moved) // len(layers)
    closed = np.stack([layer.lips for layer in layers]).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    lips, field = warp_windows(
        closed, moved, still, max(2, round(2 * geometry.scale)), held=held_corners(geometry),
        softening=SOFTENING_PX2 * geometry.scale**2,
    )  # fmt: skip
    width, height = geometry.size
    told = np.empty((len(moved), BEHIND_CHANNELS + 1, height, width), np.float32)
    for index, (contour, below) in enumerate(zip(inner.astype(np.float64), chin.astype(np.float64), strict=True)):
        told[index] = layers[index // frames].window(contour, below.mean(0), to_template(geometry), geometry.size)
    behind, weight = told[:, :BEHIND_CHANNELS], told[:, BEHIND_CHANNELS:]
    behind[:, :3] /= 127.5
    behind[:, :3] -= 1
    return LayeredPrior(
        lips + weight * (behind[:, :3] - lips), field, behind, weight[:, 0] * behind[:, 3]
    )  # fmt: skip


def held_corners(geometry: WindowGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (2,) each of the rectangle whose border the warp holds, in a window's pixels."""
    low, high = ((np.array(corner) - geometry.origin) * geometry.scale for corner in HELD)
    return low, high


def over_time(maps: np.ndarray, frames: int) -> np.ndarray:
    """Return (B, C, T, H, W) of maps (N, H, W) or (N, C, H, W) of successive windows of so many frames."""
    return maps.reshape(-1, frames, *(maps.shape[1:] if maps.ndim == 4 else (1, *maps.shape[1:]))).swapaxes(1, 2)


def one_window(maps: np.ndarray) -> np.ndarray:
    """Return maps (T, C, 1, H, W) of windows of one frame each as those of one window, (1, C, T, H, W)."""
    return np.ascontiguousarray(maps[:, :, 0].swapaxes(0, 1)[None])


def fading(size: tuple[int, int], ramp_px: float) -> np.ndarray:
    """Return (H, W) float32: 1 in a window of this width and height, falling smoothly to 0 at its border."""
    along = [np.clip(np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) / ramp_px, 0, 1) for n in size]
    across, down = (ramp * ramp * (3 - 2 * ramp) for ramp in along)
    return (down[:, None] * across).astype(np.float32)
