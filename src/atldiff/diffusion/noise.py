"""Landmarks-Guide Noise: the start of denoising, placed by the landmarks on the identity (arXiv 2507.12804, figure 2).

The published form adds mask * noise to the unmoved identity picture; ours adds it to the landmark-warped one.
"""

from __future__ import annotations

import torch


def window_noise(seed: int, channels: int, side: int) -> torch.Tensor:
    """Return one noise picture (channels, side, side) float32, a function of the seed alone.

    Every frame of a video starts from the same picture: noise that changed with the frame would flicker, and windows
    that overlap would disagree.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, side, side, generator=generator)


def guided_noise(
    prior: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, floor: float, gain: float
) -> torch.Tensor:
    """Return x1 = prior + (floor + gain * mask) * noise.

    prior: (B, 3, T, S, S) in [-1, 1]. mask: (B, 1, T, S, S) in [0, 1]. noise: broadcastable to prior.
    """
    return prior + (floor + gain * mask) * noise
