"""The forward process of 3D Identity Diffusion and its deterministic sampler (DDIM, arXiv 2010.02502).

The Gaussian end of the usual process is replaced by the guided image n = identity + mask * noise: level t holds
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n, so what an `epsilon` network predicts is n (arXiv 2507.12804; the training target
is not published).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from atldiff.config import ScheduleConfig

    Values = TypeVar("Values", np.ndarray, torch.Tensor)


def alphas(config: ScheduleConfig) -> np.ndarray:
    """Return a_t (train_steps,) float32: the share of the frames' variance that is left at each level."""
    count = config.train_steps
    if config.beta_schedule == "linear":
        betas = np.linspace(config.beta_start, config.beta_end, count)
    elif config.beta_schedule == "scaled_linear":
        betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, count) ** 2
    else:  # cosine (arXiv 2102.09672, equation 17)
        left = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - left[1:] / left[:-1], 0.999)
    return (1 - betas).cumprod().astype(np.float32)


def sampling_levels(config: ScheduleConfig, steps: int) -> list[int]:
    """Return the levels that `steps` network calls visit, from the noisiest.

    Raises:
        ValueError: more steps than there are levels.
    """
    count = config.train_steps
    if not 1 <= steps <= count:
        raise ValueError(f"steps: got {steps}, expected 1 to {count}, the levels of the schedule")
    if config.spacing == "leading":
        return [min(count - 1, step * (count // steps) + config.steps_offset) for step in reversed(range(steps))]
    if config.spacing == "trailing":
        return [max(0, round(count - step * count / steps) - 1) for step in range(steps)]
    return [round((count - 1) * step / max(1, steps - 1)) for step in reversed(range(steps))]


def at_level(x0: Values, end: Values, alpha: Values) -> Values:
    """Return x_t for frames and the guided image (B, C, T, H, W), and a_t (B,)."""
    alpha = alpha[:, None, None, None, None]
    return alpha**0.5 * x0 + (1 - alpha) ** 0.5 * end


def target(x0: Values, end: Values, alpha: Values, prediction: str) -> Values:
    """Return what a network of this prediction type should say, (B, C, T, H, W)."""
    if prediction == "sample":
        return x0
    if prediction == "epsilon":
        return end
    alpha = alpha[:, None, None, None, None]
    return alpha**0.5 * end - (1 - alpha) ** 0.5 * x0


def ends(predicted: Values, x: Values, alpha: Values, prediction: str) -> tuple[Values, Values]:
    """Return the frames and the guided image that a prediction at x_t means, each (B, C, T, H, W); alpha: a_t (B,)."""
    alpha = alpha[:, None, None, None, None]
    kept, lost = alpha**0.5, (1 - alpha) ** 0.5
    if prediction == "sample":
        return predicted, (x - kept * predicted) / lost
    if prediction == "epsilon":
        return (x - lost * predicted) / kept, predicted
    return kept * x - lost * predicted, kept * predicted + lost * x


def sample(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray], start: np.ndarray, config: ScheduleConfig, steps: int
) -> np.ndarray:
    """Walk from the guided image (B, C, T, H, W) to the frames in `steps` calls of the network. Deterministic.

    predict: (x, level (B,) int64) to what the network says.
    """
    left = alphas(config)
    levels, stride = sampling_levels(config, steps), config.train_steps // steps
    last = np.float32(1) if config.end_at_one else left[0]
    x = start
    for level in levels:
        here = np.full(len(x), left[level])
        said = predict(x, np.full(len(x), level, np.int64))
        frames, end = ends(said, x, here, config.prediction)
        if config.clip_sample:
            frames = np.clip(frames, -config.clip_sample, config.clip_sample)
        following = left[level - stride] if level >= stride else last
        x = at_level(frames, end, np.full(len(x), following))
    return x
