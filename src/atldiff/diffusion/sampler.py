"""The bridge between a real frame (t = 0) and the guided noise (t = 1), and its sampler: one function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def interpolate(x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the bridge state x_t = (1 - t) x0 + t x1 for times t (B,) in [0, 1]; x0 and x1: (B, C, T, H, W)."""
    t = t[:, None, None, None, None]
    return (1 - t) * x0 + t * x1


def sample(denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x1: torch.Tensor, steps: int) -> torch.Tensor:
    """Walk from x1 (B, C, T, H, W) to x0 on a uniform grid of `steps` steps.

    denoise: (x, t (B,)) to the predicted x0. Each step keeps the direction to the prediction,
    x <- x0_hat + (x - x0_hat) t' / t, so the last prediction is the result. Deterministic.
    """
    x = x1
    for step in range(steps, 0, -1):
        t, t_next = step / steps, (step - 1) / steps
        predicted = denoise(x, torch.full((len(x),), t, device=x.device))
        x = predicted + (x - predicted) * (t_next / t)
    return x
