"""Batches for DiffTalker's renderer: target frames of a clip and a reference of the same person at the same pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import TalkRendererConfig
from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights
from atldiff.methods import latent_inputs, lmdiff_inputs
from atldiff.methods.difftalker_inputs import build_inputs
from atldiff.methods.latent import GUESSED
from atldiff.methods.latent_inputs import latent_size
from atldiff.methods.paper import training_level
from atldiff.training.draws import Draw, item_random
from atldiff.training.renderer_data import cut_at, draw_place
from atldiff.video.window import WindowGeometry, extract

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig, LatentRendererConfig
    from atldiff.training.renderer_data import Place

FILMED = 0.5
"""Share of items whose visible part is the real frame's, as in the papers; the others show what a portrait gives."""


class LatentSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(self, clips: list[ClipWindows], config: LatentRendererConfig, *, frames: int, seed: int) -> None:
        """clips: with the points `difftalker_inputs.NEEDED`."""
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.draw = Draw(clip_weights(self.clips)) if self.clips else None
        self.config, self.frames, self.seed = config, frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch, float16 on CPU.

        target, prior (B, 3, T, S, S); hint (B, C, T, S, S); mask, mouth (B, 1, T, S, S); noise (B, C, T or 1, s, s);
        level (B,) int64, guessed (B,) bool and clips (B,).
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen, config = self.draw(random), self.config
        place = draw_place(self.clips[chosen], self.frames, random)
        video, source, target = cut_video(self.clips[chosen], place, config, random)
        wanted = video[:, :, 1:].contiguous()
        seen = wanted if random.random() < FILMED else None
        inputs = build_inputs(video[:, :, 0].contiguous(), source[None], target[None], config, seen)
        return {
            "target": wanted.half(),
            "prior": inputs.prior.half(),
            "hint": inputs.hint.half(),
            "mask": inputs.mask.half(),
            "mouth": inputs.mouth.half(),
            **draw_state(config, self.frames, random),
            "clips": torch.tensor([chosen]),
        }


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
