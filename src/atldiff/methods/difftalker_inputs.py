"""What DiffTalker's renderer sees of a window: landmark drawing, target with its lower face hidden, reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.landmarks.control import MOUTH_CONTROL
from atldiff.landmarks.raster import dilated, polygons, polylines
from atldiff.landmarks.topology import JAW, LIPS_INNER, LIPS_OUTER, NOSE
from atldiff.methods.mouth_maps import mask_and_mouth
from atldiff.video.warp import warp_windows, warp_windows_from

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig, LatentRendererConfig

HIDDEN_REACH_PX = 4.0
"""How far beyond the jaw line the target is hidden, in template pixels: its edge would tell how far the jaw is down."""
NOSE_TIP = 1

NEEDED = np.unique(np.concatenate([MOUTH_CONTROL.indices(), LIPS_OUTER, LIPS_INNER, JAW, NOSE, [NOSE_TIP]]))
"""Dense indices that the inputs are made of."""

_OUTER, _INNER, _JAW, _NOSE, _TIP = (
    np.searchsorted(NEEDED, i) for i in (LIPS_OUTER, LIPS_INNER, JAW, NOSE, np.array([NOSE_TIP]))
)
_CONTROL = MOUTH_CONTROL.within(NEEDED)


@dataclass(frozen=True, slots=True)
class PortraitMaps:
    """What a latent renderer of either method knows of B windows of T frames, float32.

    prior: (B, 3, T, S, S) warped identity in [-1, 1]. mask: (B, 1, T, S, S) in [0, 1], where the picture may change.
    hidden: likewise, the part of the target that is not shown. mouth: likewise, the inner-lip polygon grown by 5
    template px: where the error is measured and weighs most.
    """

    prior: torch.Tensor
    mask: torch.Tensor
    hidden: torch.Tensor
    mouth: torch.Tensor


@dataclass(frozen=True, slots=True)
class LatentInputs:
    """What a window is rendered from, for B windows of T frames, float32.

    prior, mask, mouth: as `PortraitMaps` has them. hint: (B, `hint_channels`, T, S, S), what the control branch sees.
    """

    prior: torch.Tensor
    hint: torch.Tensor
    mask: torch.Tensor
    mouth: torch.Tensor


def hint_channels(config: LatentRendererConfig) -> int:
    """Return the channels of the hint: drawing 3, hidden target 3, and 3 for each way the reference is shown."""
    return 12 if config.reference == "both" else 9


def drawing(points: np.ndarray, side: int) -> np.ndarray:
    """Draw landmarks as a picture of three channels, (N, 3, S, S) float32 in [0, 1].

    points: (N, len(NEEDED), 2) window pixels. Lips filled, the open mouth filled, contours of jaw and nose as lines.
    """
    width = max(1, round(side / 64))
    lips, inner = (polygons(points[:, which], side) for which in (_OUTER, _INNER))
    contours = np.maximum(polylines(points[:, _JAW], side, width), polylines(points[:, _NOSE], side, width))
    return np.stack([lips, inner, contours], 1) / np.float32(255)


def face_maps(points: np.ndarray, config: LatentDiffusionConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw where a window may change, what is hidden of the target, and the mouth: each (N, S, S) in [0, 1].

    points: (N, len(NEEDED), 2) window pixels. Hidden is the face below the tip of the nose, as in DiffTalk's code; the
    picture changes around the lips, above the jaw line, so that nothing is painted on neck and background.
    """
    side, scale = config.resolution, config.resolution / config.side
    lips, inner, face = (polygons(points[:, which], side) for which in (_OUTER, _INNER, _JAW))
    mask, mouth = mask_and_mouth(lips, inner, face, config.mask_reach_px, scale)
    below = np.arange(side)[None, :] >= points[:, _TIP, 1]  # (N, S)
    hidden = dilated(face, (HIDDEN_REACH_PX + 2) * scale, 2 * scale) * below[..., None]
    return mask, hidden.astype(np.float32), mouth


def with_gradient(
    prior: torch.Tensor, identity: torch.Tensor, source: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Return the warped portrait of `portrait_maps` as it is, with a gradient on the wanted points.

    prior: (B, 3, T, S, S). identity: (B, 3, S, S). source: (B, len(NEEDED), 2), target: (B, T, len(NEEDED), 2) window
    pixels, which may have a gradient: that of a field twice as coarse, for a quarter of the work.
    """
    batch, frames = target.shape[:2]
    first, second = (torch.as_tensor(x, device=target.device) for x in (_CONTROL.first, _CONTROL.second))
    part = torch.as_tensor(_CONTROL.part, device=target.device)[:, None]
    still, wanted = (p[..., first, :] * (1 - part) + p[..., second, :] * part for p in (source, target))
    warped, _ = warp_windows_from(
        identity.repeat_interleave(frames, 0), wanted.flatten(0, 1), still.repeat_interleave(frames, 0), cell_px=4
    )
    moving = warped.unflatten(0, (batch, frames)).transpose(1, 2)
    return prior + (moving - moving.detach())


def portrait_maps(
    identity: torch.Tensor, source: np.ndarray, target: np.ndarray, config: LatentDiffusionConfig
) -> PortraitMaps:
    """Warp the portrait's window to the wanted points and draw what a latent renderer knows of each frame.

    identity: (B, 3, S, S) float32 in [-1, 1]. source: (B, len(NEEDED), 2) its points in window pixels. target: (B, T,
    len(NEEDED), 2) the wanted points.
    """
    batch, frames = target.shape[:2]
    side = config.resolution
    flat = target.reshape(batch * frames, -1, 2).astype(np.float32)
    still = np.repeat(_CONTROL.of(source.astype(np.float32)), frames, 0)
    warped, _ = warp_windows(identity.repeat_interleave(frames, 0), _CONTROL.of(flat), still)

    def over_time(maps: np.ndarray | torch.Tensor) -> torch.Tensor:
        maps = torch.as_tensor(maps, device=identity.device).reshape(batch, frames, -1, side, side)
        return maps.transpose(1, 2)  # (B, C, T, S, S)

    mask, hidden, mouth = (over_time(maps) for maps in face_maps(flat, config))
    return PortraitMaps(over_time(warped), mask, hidden, mouth)


def build_inputs(
    identity: torch.Tensor,
    source: np.ndarray,
    target: np.ndarray,
    config: LatentRendererConfig,
    seen: torch.Tensor | None = None,
) -> LatentInputs:
    """Build the renderer's inputs.

    identity, source, target: as for `portrait_maps`. seen: (B, 3, T, S, S) frames whose visible part is shown; None
    shows the warped portrait, which is all that there is when nothing was filmed.
    """
    batch, frames = target.shape[:2]
    side = config.resolution
    maps = portrait_maps(identity, source, target, config)
    lines = drawing(target.reshape(batch * frames, -1, 2).astype(np.float32), side)
    lines = torch.as_tensor(lines, device=identity.device).reshape(batch, frames, 3, side, side).transpose(1, 2)
    shown = (maps.prior if seen is None else seen) * (1 - maps.hidden)
    unmoved = identity[:, :, None].expand(-1, -1, frames, -1, -1)
    references = {"warped": [maps.prior], "still": [unmoved], "both": [maps.prior, unmoved]}
    hint = torch.cat([lines, shown, *references[config.reference]], dim=1)
    return LatentInputs(maps.prior, hint, maps.mask, maps.mouth)
