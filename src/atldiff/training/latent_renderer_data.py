"""What the batches of latent renderers have in common: pictures of a place, noise and where on the way from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import TalkRendererConfig
from atldiff.methods import latent_inputs
from atldiff.methods.atl_published.network import training_level
from atldiff.methods.latent import GUESSED
from atldiff.methods.latent_inputs import latent_size
from atldiff.methods.lmdiff import inputs as lmdiff_inputs
from atldiff.training.places import cut_at
from atldiff.video.window import WindowGeometry, extract

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig, LatentRendererConfig
    from atldiff.data.windows import ClipWindows
    from atldiff.training.places import Place

FILMED = 0.5
"""Share of items whose visible part is the real frame's, as in the papers; the others show what a portrait gives."""


def cut_video(
    clip: ClipWindows, place: Place, config: LatentDiffusionConfig, random: np.random.Generator
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Cut a place's pictures at a renderer's resolution, in random colours.

    Returns:
        video (1, 3, 1 + T, S, S), the reference first; points of the reference (K, 2) and of the frames (T, K, 2).
    """
    # Prepared windows are kept in template pixels: a larger resolution is cut from them as it would be rendered.
    images, source, target = cut_at(clip, place, WindowGeometry(config.side, config.origin), random)
    ratio = config.resolution / config.side
    if ratio != 1:
        matrix = np.array([[ratio, 0, 0], [0, ratio, 0]])
        images = np.stack([extract(image, matrix, config.resolution) for image in images])
        source, target = source * np.float32(ratio), target * np.float32(ratio)
    return torch.from_numpy(np.ascontiguousarray(images)).permute(3, 0, 1, 2)[None], source, target


def needed_points(config: LatentRendererConfig | TalkRendererConfig) -> np.ndarray:
    """Return the dense points (K,) that a renderer's inputs are made of."""
    return lmdiff_inputs.NEEDED if isinstance(config, TalkRendererConfig) else latent_inputs.NEEDED


def draw_noise(config: LatentDiffusionConfig, frames: int, random: np.random.Generator) -> torch.Tensor:
    """Draw the noise of a clip's frames, (1, C, T or 1, h, w) float16, as the configuration has it over time."""
    width, height = latent_size(config)
    different = 1 if config.noise_over_time == "shared" else frames
    noise = random.standard_normal((1, config.codec.channels, different, height, width), np.float32)
    return torch.from_numpy(noise).half()


def draw_state(config: LatentDiffusionConfig, frames: int, random: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw where on the way from noise a clip is trained: noise (1, C, T or 1, s, s), level (1,) and guessed (1,)."""
    return {
        "noise": draw_noise(config, frames, random),
        "level": torch.tensor([training_level(random, config.schedule.train_steps)]),
        "guessed": torch.tensor([random.random() < GUESSED]),
    }
