"""Batches for a latent renderer whose mouth has two layers, of either method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import TalkRendererConfig
from atldiff.data.windows import MIN_APART_FRAMES
from atldiff.methods import difftalker_inputs, latent_inputs, lmdiff_inputs
from atldiff.methods.latent_inputs import latent_size, latent_window
from atldiff.training.draws import item_random
from atldiff.training.latent_renderer_data import FILMED
from atldiff.training.mouth_data import START_SHARE, MouthDraws

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig, LatentRendererConfig
    from atldiff.data.mouths import ClipMouths
    from atldiff.training.mouth_data import TakenMouths


def needed_points(config: LatentRendererConfig | TalkRendererConfig) -> np.ndarray:
    """Return the dense points (K,) that a renderer's inputs are made of."""
    return lmdiff_inputs.NEEDED if isinstance(config, TalkRendererConfig) else latent_inputs.NEEDED


class LatentMouthSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(
        self, clips: list[ClipMouths], config: LatentRendererConfig | TalkRendererConfig, *, frames: int, seed: int,
        **changes: float,
    ) -> None:  # fmt: skip
        """clips: with the points `needed_points`. changes: `sharpen` and `tint` of `MouthDraws`."""
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.draws = MouthDraws(self.clips, needed_points(config), frames=frames, **changes)
        self.config, self.frames, self.seed = config, frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch on CPU, float16, points float32.

        As `MouthSet` has them: target, prior, mask, mouth, beside, centre, sharp, clips, step. noise (B, C, T or 1, h,
        w), level (B,) int64. Of DiffTalker hint (B, C, T, H, W); of LMDiff shown, reference, source and points as
        `TalkSet` has them.
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return batch | {"step": torch.full((len(rows),), step)}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        config = self.config
        taken = self.draws.take(latent_window(config), random)
        seen = taken.video[:, :, 1:] if random.random() < FILMED else None
        talks = isinstance(config, TalkRendererConfig)
        made = _talk_inputs(taken, config, seen) if talks else _control_inputs(taken, config, seen)
        return {
            "target": taken.video[:, :, 1:].half(),
            **made,
            **draw_start(config, self.frames, random),
            **taken.common,
        }


def draw_start(config: LatentDiffusionConfig, frames: int, random: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw where on a sampler's way a clip is trained: noise (1, C, T or 1, h, w) and level (1,).

    Mostly at the noisiest level, where every sampler starts and a one-step sampler ends.
    """
    width, height = latent_size(config)
    different = 1 if config.noise_over_time == "shared" else frames
    noise = random.standard_normal((1, config.codec.channels, different, height, width), np.float32)
    last = config.schedule.train_steps - 1
    level = last if random.random() < START_SHARE else int(random.integers(0, last))
    return {"noise": torch.from_numpy(noise).half(), "level": torch.tensor([level])}


def _control_inputs(
    taken: TakenMouths, config: LatentRendererConfig, seen: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    identity = taken.video[:, :, 0].contiguous()
    inputs = difftalker_inputs.build_inputs(identity, taken.source, taken.target, config, seen, [taken.layers])
    return {name: getattr(inputs, name).half() for name in ("prior", "hint", "mask", "mouth")}


def _talk_inputs(taken: TakenMouths, config: TalkRendererConfig, seen: torch.Tensor | None) -> dict[str, torch.Tensor]:
    identity = taken.video[:, :, 0].contiguous()
    inputs = lmdiff_inputs.build_inputs(
        identity, taken.source, taken.target, config, seen, layers=[taken.layers]
    )  # fmt: skip
    tokens = lmdiff_inputs.mirrored_tokens() if taken.flip else lmdiff_inputs.TOKENS
    made = {name: getattr(inputs, name).half() for name in ("prior", "shown", "mask", "mouth")}
    points = {"source": taken.source[:, tokens], "points": taken.target[:, :, tokens]}
    return made | {"reference": identity.half()} | {name: torch.from_numpy(value) for name, value in points.items()}
