"""What the published renderer starts from: the identity picture, repeated or warped, and the noise mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from atldiff.diffusion.noise import guide_mask
from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.topology import SIXTY_EIGHT
from atldiff.methods.mouth_layers import over_time
from atldiff.video.warp import warp_windows

if TYPE_CHECKING:
    import torch

    from atldiff.config import IdentityDiffusionConfig

    Values = TypeVar("Values", np.ndarray, torch.Tensor)

NEEDED = np.unique(np.concatenate([FACE_CONTROL.indices(), SIXTY_EIGHT]))
"""Dense indices that the inputs are made of."""

_SIXTY_EIGHT = np.searchsorted(NEEDED, SIXTY_EIGHT)
_CONTROL = FACE_CONTROL.within(NEEDED)


def build_start(
    identity: np.ndarray, source: np.ndarray, target: np.ndarray, config: IdentityDiffusionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return the prior (B, 3, T, S, S) in [0, 1] and the mask (B, 1, T, S, S) in [0, 1], float32.

    identity: (B, 3, S, S) float32 in [0, 1]. source: (B, len(NEEDED), 2) its points in window
    pixels, which only the warped prior looks at. target: (B, T, len(NEEDED), 2) the wanted points.
    """
    batch, frames = target.shape[:2]
    wanted = target.astype(np.float32)
    mask = guide_mask(
        wanted[:, :, _SIXTY_EIGHT], config.side, config.blur_kernel, over_clip=config.mask_scale == "clip"
    )
    if config.prior == "identity":
        return np.repeat(identity[:, :, None], frames, 2), mask
    moved = _CONTROL.of(wanted.reshape(batch * frames, -1, 2))
    still = np.repeat(_CONTROL.of(source.astype(np.float32)), frames, 0)
    warped, _ = warp_windows(identity, moved, still)
    return np.ascontiguousarray(over_time(warped, frames)), mask


def guided_image(prior: Values, mask: Values, noise: Values, config: IdentityDiffusionConfig) -> Values:
    """Return the process's end n = prior + scale * noise, (B, 3, T, S, S).

    prior: (B, 3, T, S, S), the repeated identity. mask: (B, 1, T, S, S) in [0, 1]. noise: (B, 3, T or 1, S, S). The
    published scale is mask + 0.1; the `uniform` ablation has its root mean square everywhere.
    """
    scale = mask + config.noise_floor
    if config.noise == "uniform":
        scale = (scale * scale).mean((1, 2, 3, 4))[:, None, None, None, None] ** 0.5
    return prior + scale * noise  # pyright: ignore[reportReturnType]
