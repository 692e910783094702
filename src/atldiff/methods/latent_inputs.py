"""What the latent renderers of two methods see of a window alike: the warped portrait, and maps of the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.control import CHIN, MOUTH_CONTROL
from atldiff.landmarks.raster import dilated, polygons
from atldiff.landmarks.topology import JAW, LIPS_INNER, LIPS_OUTER, NOSE
from atldiff.methods.mouth_layers import BORDER_PX, fading, layered_prior, over_time
from atldiff.methods.mouth_maps import mask_and_mouth
from atldiff.video.warp import warp_windows
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.config import LatentDiffusionConfig
    from atldiff.video.cavity import MouthLayers

HIDDEN_REACH_PX = 4.0
"""How far beyond the jaw line the target is hidden, in template pixels: its edge would tell how far the jaw is down."""
NOSE_TIP = 1

NEEDED = np.unique(np.concatenate([MOUTH_CONTROL.indices(), LIPS_OUTER, LIPS_INNER, JAW, NOSE, CHIN, [NOSE_TIP]]))
"""Dense indices that the inputs are made of."""

OUTER, INNER, JAW_LINE, NOSE_LINE, CHIN_POINTS, _TIP = (
    np.searchsorted(NEEDED, i) for i in (LIPS_OUTER, LIPS_INNER, JAW, NOSE, CHIN, np.array([NOSE_TIP]))
)
"""Where in `NEEDED` the contours are."""
CONTROL = MOUTH_CONTROL.within(NEEDED)
"""The control points of the warp, of `NEEDED`."""


@dataclass(frozen=True, slots=True)
class PortraitMaps:
    """What a latent renderer of either method knows of B windows of T frames, float32.

    prior: (B, 3, T, H, W) warped identity in [-1, 1]. mask: (B, 1, T, H, W) in [0, 1], where the picture may change.
    hidden: likewise, the part of the target that is not shown. mouth: likewise, the inner-lip polygon grown by 5
    template px: where the error is measured and weighs most. behind: (B, 4, T, H, W) of a layered renderer, what is
    behind the lips and where it was seen; None of others.
    """

    prior: np.ndarray
    mask: np.ndarray
    hidden: np.ndarray
    mouth: np.ndarray
    behind: np.ndarray | None = None


def latent_window(config: LatentDiffusionConfig) -> WindowGeometry:
    """Return a renderer's window at the codec's resolution."""
    return WindowGeometry(config.resolution, config.origin, config.resolution / config.side, config.height or None)


def latent_size(config: LatentDiffusionConfig) -> tuple[int, int]:
    """Return the width and height of its latents."""
    width, height = latent_window(config).size
    return width // config.codec.factor, height // config.codec.factor


def face_maps(points: np.ndarray, config: LatentDiffusionConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw where a window may change, what is hidden of the target, and the mouth: each (N, H, W) in [0, 1].

    points: (N, len(NEEDED), 2) window pixels. Hidden is the face below the tip of the nose, as in DiffTalk's code; the
    picture changes around the lips, above the jaw line, so that nothing is painted on neck and background.
    """
    geometry = latent_window(config)
    size, scale = geometry.size, geometry.scale
    lips, inner, face = (polygons(points[:, which], size) for which in (OUTER, INNER, JAW_LINE))
    mask, mouth = mask_and_mouth(lips, inner, face, config.mask_reach_px, scale)
    if config.layered:
        mask = mask * fading(size, BORDER_PX * scale)
    below = np.arange(size[1])[None, :] >= points[:, _TIP, 1]  # (N, H)
    hidden = dilated(face, (HIDDEN_REACH_PX + 2) * scale, 2 * scale) * below[..., None]
    return mask, hidden.astype(np.float32), mouth


def portrait_maps(
    identity: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    config: LatentDiffusionConfig,
    layers: Sequence[MouthLayers] = (),
) -> PortraitMaps:
    """Warp the portrait's window to the wanted points and draw what a latent renderer knows of each frame.

    identity: (B, 3, H, W) float32 in [-1, 1]. source: (B, len(NEEDED), 2) its points in window pixels. target: (B, T,
    len(NEEDED), 2) the wanted points. layers: of each window, for a layered renderer.
    """
    batch, frames = target.shape[:2]
    geometry = latent_window(config)
    flat = target.reshape(batch * frames, -1, 2).astype(np.float32)
    moved, still = CONTROL.of(flat), np.repeat(CONTROL.of(source.astype(np.float32)), frames, 0)
    given = None
    if config.layered:
        given = layered_prior(layers, moved, still, flat[:, INNER], flat[:, CHIN_POINTS], geometry)
        warped = given.prior
    else:
        warped, _ = warp_windows(identity, moved, still)

    mask, hidden, mouth = (over_time(maps, frames) for maps in face_maps(flat, config))
    behind = None if given is None else over_time(given.behind, frames)
    return PortraitMaps(over_time(warped, frames), mask, hidden, mouth, behind)
