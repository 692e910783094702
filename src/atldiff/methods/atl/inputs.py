"""What the compact ATL-Diff renderer sees of a window: warped prior, identity, landmark maps and the noise mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from atldiff.landmarks.control import CHIN, MOUTH_CONTROL
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.topology import JAW, LIPS_INNER, LIPS_OUTER
from atldiff.methods.mouth_layers import BEHIND_CHANNELS, BORDER_PX, fading, layered_prior, over_time
from atldiff.methods.mouth_maps import mask_and_mouth
from atldiff.video.warp import warp_windows
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from atldiff.config import RendererConfig
    from atldiff.video.cavity import MouthLayers

    Values = TypeVar("Values", np.ndarray, torch.Tensor)

FIELD_SCALE_PX = 8.0
"""Template pixels of a displacement that the network sees as one."""
NEEDED = np.unique(np.concatenate([MOUTH_CONTROL.indices(), LIPS_OUTER, LIPS_INNER, JAW, CHIN]))
"""Dense indices that the inputs are made of."""


def condition_channels(config: RendererConfig) -> int:
    """Return the channels beside the noisy window.

    Prior 3, identity 3, lip maps 4, noise mask 1, displacement 2; layered also what stands behind the lips 3, and where
    it was seen 1.
    """
    return 13 + (BEHIND_CHANNELS if config.layered else 0)


@dataclass(frozen=True, slots=True)
class RendererInputs:
    """Everything the denoiser is conditioned on, for B windows of T frames, float32.

    prior: (B, 3, T, H, W) warped identity in [-1, 1]. conditions: (B, 13 or 17, T, H, W). mask: (B, 1, T, H, W) in
    [0, 1], where noise is placed and the picture may change. mouth: (B, 1, T, H, W) in [0, 1], the inner-lip polygon
    grown by 5 template px: where the error is measured and weighs most.
    """

    prior: np.ndarray
    conditions: np.ndarray
    mask: np.ndarray
    mouth: np.ndarray


def _subset(indices: np.ndarray) -> np.ndarray:
    return np.searchsorted(NEEDED, indices)


_OUTER, _INNER, _JAW, _CHIN = (_subset(i) for i in (LIPS_OUTER, LIPS_INNER, JAW, CHIN))
_CONTROL = MOUTH_CONTROL.within(NEEDED)


def window_of(config: RendererConfig) -> WindowGeometry:
    """Return a renderer's window."""
    return WindowGeometry(config.side, config.origin, config.scale, config.height or None)


def lip_maps(points: np.ndarray, config: RendererConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw the lip maps of windows.

    points: (N, len(NEEDED), 2) window pixels.

    Returns:
        lips and inner mouth (N, H, W) float32 in [0, 1], and the noise mask (N, H, W): the lips grown by
        `mask_reach_px`, kept above the jaw line so that nothing is painted on the neck or the background; and the
        inner mouth grown by 5 template px (N, H, W).
    """
    size = window_of(config).size
    lips = polygons(points[:, _OUTER], size)
    inner = polygons(points[:, _INNER], size)
    face = polygons(points[:, _JAW], size)
    mask, mouth = mask_and_mouth(lips, inner, face, config.mask_reach_px, config.scale)
    if config.layered:
        mask = mask * fading(size, BORDER_PX * config.scale)
    return lips / np.float32(255), inner / np.float32(255), mask, mouth


def build_inputs(
    identity: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    config: RendererConfig,
    layers: Sequence[MouthLayers] = (),
) -> RendererInputs:
    """Build the renderer's inputs.

    identity: (B, 3, H, W) float32 in [-1, 1], the portrait's window. source: (B, len(NEEDED), 2) its points in window
    pixels. target: (B, T, len(NEEDED), 2) the wanted points. layers: of each window, for a layered renderer.
    """
    batch, frames = target.shape[:2]
    geometry = window_of(config)
    width, height = geometry.size
    flat = target.reshape(batch * frames, -1, 2).astype(np.float32)
    lips, inner, mask, mouth = lip_maps(flat, config)
    source_maps = np.stack([polygons(source[:, place], geometry.size) for place in (_OUTER, _INNER)], 1)
    moved = _CONTROL.of(flat)
    still = np.repeat(_CONTROL.of(source.astype(np.float32)), frames, 0)
    behind = []
    if config.layered:
        given = layered_prior(layers, moved, still, flat[:, _INNER], flat[:, _CHIN], geometry)
        prior, field, behind = given.prior, given.field, [given.behind]
        if config.keep_seen:
            mask = mask * (1 - np.float32(config.keep_seen) * given.seen)
    else:
        prior, field = warp_windows(identity, moved, still)
    field /= FIELD_SCALE_PX * config.scale
    unmoved, source_maps = (
        np.broadcast_to(maps[:, :, None], (batch, maps.shape[1], frames, height, width))
        for maps in (identity, source_maps / np.float32(255))
    )
    prior, lips, inner, mask, mouth, field, *behind = (
        over_time(maps, frames) for maps in (prior, lips, inner, mask, mouth, field, *behind)
    )
    conditions = np.concatenate([prior, unmoved, lips, inner, source_maps, mask, field, *behind], axis=1)
    return RendererInputs(prior, conditions, mask, mouth)


def changed(prior: Values, mask: Values, residual: Values, config: RendererConfig) -> Values:
    """Return frames (B, 3, T, S, S): the prior with what the network adds to it, its colour as configured.

    Outside the mask they are the prior: nothing is invented there, so nothing can flicker.
    """
    if config.chroma < 1:
        grey = residual.mean(1)[:, None]
        residual = grey + config.chroma * (residual - grey)  # pyright: ignore[reportAssignmentType]
    return prior + mask * residual
