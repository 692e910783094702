"""What the published renderer starts from: the identity picture, repeated or warped, and the noise mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.diffusion.noise import guide_mask
from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.topology import SIXTY_EIGHT
from atldiff.video.warp import warp_windows

if TYPE_CHECKING:
    from atldiff.config import IdentityDiffusionConfig

NEEDED = np.unique(np.concatenate([FACE_CONTROL.indices(), SIXTY_EIGHT]))
"""Dense indices that the inputs are made of."""

_SIXTY_EIGHT = np.searchsorted(NEEDED, SIXTY_EIGHT)
_CONTROL = FACE_CONTROL.within(NEEDED)


def build_start(
    identity: torch.Tensor, source: np.ndarray, target: np.ndarray, config: IdentityDiffusionConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prior (B, 3, T, S, S) in [0, 1] and the mask (B, 1, T, S, S) in [0, 1].

    identity: (B, 3, S, S) in [0, 1], on the device that computes. source: (B, len(NEEDED), 2) its points in window
    pixels, which only the warped prior looks at. target: (B, T, len(NEEDED), 2) the wanted points.
    """
    batch, frames = target.shape[:2]
    wanted = torch.as_tensor(target, dtype=torch.float32, device=identity.device)
    mask = guide_mask(
        wanted[:, :, _SIXTY_EIGHT], config.side, config.blur_kernel, over_clip=config.mask_scale == "clip"
    )
    repeated = identity[:, :, None].expand(-1, -1, frames, -1, -1)
    if config.prior == "identity":
        return repeated.contiguous(), mask
    moved = _CONTROL.of(target.reshape(batch * frames, -1, 2).astype(np.float32))
    still = np.repeat(_CONTROL.of(source.astype(np.float32)), frames, 0)
    flat = repeated.transpose(1, 2).reshape(batch * frames, *identity.shape[1:])
    warped, _ = warp_windows(flat, moved, still)
    return warped.reshape(batch, frames, *identity.shape[1:]).transpose(1, 2).contiguous(), mask
