"""The warped portrait once more, of tensors: so that a loss on what is painted from it reaches the landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from atldiff.methods.latent_inputs import CONTROL, latent_window
from atldiff.methods.mouth_layers import held_corners
from atldiff.video.warp import SOFTENING_PX2, evaluated_grid

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig


def with_gradient(
    prior: torch.Tensor,
    identity: torch.Tensor,
    source: torch.Tensor,
    target: torch.Tensor,
    config: LatentDiffusionConfig,
) -> torch.Tensor:
    """Return the warped portrait of `portrait_maps` as it is, with a gradient on the wanted points.

    prior: (B, 3, T, H, W). identity: (B, 3, H, W), what is warped. source: (B, len(NEEDED), 2), target: (B, T,
    len(NEEDED), 2) window pixels, which may have a gradient: that of a field twice as coarse, for a quarter of the
    work. What is behind the lips of a layered renderer has none.
    """
    batch, frames = target.shape[:2]
    first, second = (torch.as_tensor(x, device=target.device) for x in (CONTROL.first, CONTROL.second))
    part = torch.as_tensor(CONTROL.part, device=target.device)[:, None]
    still, wanted = (p[..., first, :] * (1 - part) + p[..., second, :] * part for p in (source, target))
    geometry = latent_window(config)
    scale = geometry.scale if config.layered else 1.0
    warped, _ = warp_windows_from(
        identity.repeat_interleave(frames, 0), wanted.flatten(0, 1), still.repeat_interleave(frames, 0),
        cell_px=round(4 * scale), held=held_corners(geometry) if config.layered else None,
        softening=SOFTENING_PX2 * scale**2,
    )  # fmt: skip
    moving = warped.unflatten(0, (batch, frames)).transpose(1, 2)
    return prior + (moving - moving.detach())


def warp_windows_from(
    images: torch.Tensor, target: torch.Tensor, source: torch.Tensor, cell_px: int = 2, *,
    held: tuple[np.ndarray, np.ndarray] | None = None, softening: float = SOFTENING_PX2,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Do as `warp_windows` does, differentiably in the control points; returns the same.

    images: (N, C, H, W). target, source: (N, K, 2) float32 in window pixels, on the images' device.
    """
    height, width = images.shape[-2:]
    grid = evaluated_grid((width, height), cell_px, held)
    columns, rows, anchors = (torch.as_tensor(x, device=images.device) for x in grid)
    there, here = (torch.cat([points, anchors.expand(len(points), -1, -1)], 1) for points in (target, source))
    across = (columns[:, None] - there[:, None, :, 0]).square() + softening  # (N, w, K)
    down = (rows[:, None] - there[:, None, :, 1]).square()  # (N, h, K)
    weights = (down[:, :, None] + across[:, None]).square().reciprocal()  # (N, h, w, K)
    moves = (here - there)[:, None]  # (N, 1, K, 2)
    return _resampled(images, weights @ moves / weights.sum(-1, keepdim=True))


def _resampled(images: torch.Tensor, fields: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, C, H, W) read through coarse fields (N, h, w, 2), and the fields at their size (N, 2, H, W)."""
    height, width = images.shape[-2:]
    field = functional.interpolate(
        fields.permute(0, 3, 1, 2), size=(height, width), mode="bilinear", align_corners=False
    )
    columns, rows = (torch.arange(n, dtype=torch.float32, device=images.device) for n in (width, height))
    here = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))  # (2, H, W)
    each = torch.tensor([width, height], dtype=torch.float32, device=images.device)[:, None, None]
    lookup = (here + field) * (2 / each) + (1 / each - 1)  # align_corners=False coordinates
    warped = functional.grid_sample(
        images, lookup.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return warped, field
