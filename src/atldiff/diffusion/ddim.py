"""The forward process of 3D Identity Diffusion and its deterministic sampler (DDIM, arXiv 2010.02502).

The Gaussian end of the usual process is replaced by the guided image n = identity + mask * noise: level t holds
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n, so what an `epsilon` network predicts is n (arXiv 2507.12804; the training target
is not published).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import ScheduleConfig


def alphas(config: ScheduleConfig) -> torch.Tensor:
    """Return a_t (train_steps,) float32: the share of the frames' variance that is left at each level."""
    count = config.train_steps
    if config.beta_schedule == "linear":
        betas = torch.linspace(config.beta_start, config.beta_end, count, dtype=torch.float64)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, count, dtype=torch.float64) ** 2
    else:  # cosine (arXiv 2102.09672, equation 17)
        left = torch.cos((torch.arange(count + 1, dtype=torch.float64) / count + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - left[1:] / left[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0).float()


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


def at_level(x0: torch.Tensor, end: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return x_t for frames and the guided image (B, C, T, H, W), and a_t (B,)."""
    alpha = alpha[:, None, None, None, None]
    return alpha.sqrt() * x0 + (1 - alpha).sqrt() * end


def target(x0: torch.Tensor, end: torch.Tensor, alpha: torch.Tensor, prediction: str) -> torch.Tensor:
    """Return what a network of this prediction type should say, (B, C, T, H, W)."""
    if prediction == "sample":
        return x0
    if prediction == "epsilon":
        return end
    alpha = alpha[:, None, None, None, None]
    return alpha.sqrt() * end - (1 - alpha).sqrt() * x0


def ends(
    predicted: torch.Tensor, x: torch.Tensor, alpha: torch.Tensor, prediction: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the frames and the guided image that a prediction at x_t means, each (B, C, T, H, W); alpha: a_t (B,)."""
    alpha = alpha[:, None, None, None, None]
    kept, lost = alpha.sqrt(), (1 - alpha).sqrt()
    if prediction == "sample":
        return predicted, (x - kept * predicted) / lost
    if prediction == "epsilon":
        return (x - lost * predicted) / kept, predicted
    return kept * x - lost * predicted, kept * predicted + lost * x


def sample(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    config: ScheduleConfig,
    steps: int,
) -> torch.Tensor:
    """Walk from the guided image (B, C, T, H, W) to the frames in `steps` calls of the network. Deterministic.

    predict: (x, level (B,) int64) to what the network says.
    """
    left = alphas(config).to(start.device)
    levels, stride = sampling_levels(config, steps), config.train_steps // steps
    last = torch.ones((), device=start.device) if config.end_at_one else left[0]
    x = start
    for level in levels:
        here = left[level].expand(len(x))
        said = predict(x, torch.full((len(x),), level, device=x.device)).float()
        frames, end = ends(said, x, here, config.prediction)
        if config.clip_sample:
            frames = frames.clamp(-config.clip_sample, config.clip_sample)
        following = left[level - stride] if level >= stride else last
        x = at_level(frames, end, following.expand(len(x)))
    return x
