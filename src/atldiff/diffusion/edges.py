"""How far the edges of a picture are off: what asks for teeth and lip edges instead of their blurred mean."""

from __future__ import annotations

import torch


def edge_errors(difference: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the error of neighbouring-pixel differences of each clip (B,): summed by weight, the mean over channels.

    difference: (B, C, T, S, S) of a picture from the true one. weight: (B, 1, T, S, S).
    """
    across = (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean(dim=1, keepdim=True)
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean(dim=1, keepdim=True)
    axes = (1, 2, 3, 4)
    return (weight[..., :, 1:] * across).sum(axes) + (weight[..., 1:, :] * down).sum(axes)
