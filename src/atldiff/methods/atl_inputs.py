"""What the compact ATL-Diff renderer sees of a window: warped prior, identity, landmark maps and the noise mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.landmarks.control import MOUTH_CONTROL
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.topology import JAW, LIPS_INNER, LIPS_OUTER
from atldiff.methods.mouth_maps import mask_and_mouth
from atldiff.video.warp import warp_windows

if TYPE_CHECKING:
    from atldiff.config import RendererConfig

FIELD_SCALE_PX = 8.0
CONDITION_CHANNELS = 13
"""Channels beside the noisy window: prior 3, identity 3, lip maps 4, noise mask 1, displacement 2."""

NEEDED = np.unique(np.concatenate([MOUTH_CONTROL.indices(), LIPS_OUTER, LIPS_INNER, JAW]))
"""Dense indices that the inputs are made of."""


@dataclass(frozen=True, slots=True)
class RendererInputs:
    """Everything the denoiser is conditioned on, for B windows of T frames, float32.

    prior: (B, 3, T, S, S) warped identity in [-1, 1]. conditions: (B, 13, T, S, S). mask: (B, 1, T, S, S) in [0, 1],
    where noise is placed and the picture may change. mouth: (B, 1, T, S, S) in [0, 1], the inner-lip polygon grown by
    5 px: where the error is measured and weighs most.
    """

    prior: torch.Tensor
    conditions: torch.Tensor
    mask: torch.Tensor
    mouth: torch.Tensor


def _subset(indices: np.ndarray) -> np.ndarray:
    return np.searchsorted(NEEDED, indices)


_OUTER, _INNER, _JAW = (_subset(i) for i in (LIPS_OUTER, LIPS_INNER, JAW))
_CONTROL = MOUTH_CONTROL.within(NEEDED)


def lip_maps(points: np.ndarray, config: RendererConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw the lip maps of windows.

    points: (N, len(NEEDED), 2) window pixels.

    Returns:
        lips and inner mouth (N, S, S) float32 in [0, 1], and the noise mask (N, S, S): the lips grown by
        `mask_reach_px`, kept above the jaw line so that nothing is painted on the neck or the background; and the
        inner mouth grown by 5 px (N, S, S).
    """
    side = config.side
    lips = polygons(points[:, _OUTER], side)
    inner = polygons(points[:, _INNER], side)
    mask, mouth = mask_and_mouth(lips, inner, polygons(points[:, _JAW], side), config.mask_reach_px)
    return lips / np.float32(255), inner / np.float32(255), mask, mouth


def build_inputs(
    identity: np.ndarray | torch.Tensor, source: np.ndarray, target: np.ndarray, config: RendererConfig
) -> RendererInputs:
    """Build the renderer's inputs.

    identity: (B, 3, S, S) float32 in [-1, 1], the portrait's window. source: (B, len(NEEDED), 2) its points in window
    pixels. target: (B, T, len(NEEDED), 2) the wanted points.
    """
    identity = torch.as_tensor(identity)
    batch, frames = target.shape[:2]
    side = config.side
    flat = target.reshape(batch * frames, -1, 2).astype(np.float32)
    lips, inner, mask, mouth = lip_maps(flat, config)
    source_lips, source_inner, _, _ = lip_maps(source.astype(np.float32), config)
    repeated = identity.repeat_interleave(frames, 0)  # (B * T, 3, S, S)
    moved = _CONTROL.of(flat)
    still = np.repeat(_CONTROL.of(source.astype(np.float32)), frames, 0)
    prior, field = warp_windows(repeated, moved, still)

    def over_time(maps: np.ndarray | torch.Tensor) -> torch.Tensor:
        maps = torch.as_tensor(maps).reshape(batch, frames, -1, side, side)
        return maps.transpose(1, 2)  # (B, C, T, S, S)

    source_maps = torch.as_tensor(np.stack([source_lips, source_inner], 1)).repeat_interleave(frames, 0)
    conditions = torch.cat([
        over_time(prior), over_time(repeated), over_time(lips), over_time(inner), over_time(source_maps),
        over_time(mask), over_time(field / FIELD_SCALE_PX),
    ], dim=1)  # fmt: skip
    return RendererInputs(over_time(prior), conditions, over_time(mask), over_time(mouth))
