"""The bridge between a real frame (t = 0) and the guided noise (t = 1), and its sampler: one function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Values = TypeVar("Values", np.ndarray, torch.Tensor)


def interpolate(x0: Values, x1: Values, t: Values) -> Values:
    """Return the bridge state x_t = (1 - t) x0 + t x1 for times t (B,) in [0, 1]; x0 and x1: (B, C, T, H, W)."""
    t = t[:, None, None, None, None]
    return (1 - t) * x0 + t * x1


def sample(denoise: Callable[[np.ndarray, np.ndarray], np.ndarray], x1: np.ndarray, steps: int) -> np.ndarray:
    """Walk from x1 (B, C, T, H, W) to x0 on a uniform grid of `steps` steps.

    denoise: (x, t (B,) float32) to the predicted x0. Each step keeps the direction to the prediction,
    x <- x0_hat + (x - x0_hat) t' / t, so the last prediction is the result. Deterministic.
    """
    x = x1
    for step in range(steps, 0, -1):
        t, t_next = step / steps, (step - 1) / steps
        predicted = denoise(x, np.full(len(x), t, np.float32))
        x = predicted + (x - predicted) * (t_next / t) if t_next else predicted
    return x


def time_features(t: np.ndarray, width: int) -> np.ndarray:
    """Return what `blocks.time_embedding` does of bridge times t (B,) in [0, 1], (B, width) float32; width is even."""
    frequencies = np.exp(np.arange(width // 2, dtype=np.float32) * np.float32(-math.log(1000.0) / (width // 2)))
    angles = t.astype(np.float32)[:, None] * np.float32(1000) * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)
