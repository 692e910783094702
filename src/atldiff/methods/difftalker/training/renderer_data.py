"""Batches for DiffTalker's renderer: target frames of a clip and a reference of the same person at the same pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights
from atldiff.methods.difftalker.inputs import build_inputs
from atldiff.training.draws import Draw, item_random
from atldiff.training.latent_renderer_data import FILMED, cut_video, draw_state
from atldiff.training.places import draw_place

if TYPE_CHECKING:
    import numpy as np

    from atldiff.config import LatentRendererConfig


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
        seen = wanted.numpy() if random.random() < FILMED else None
        inputs = build_inputs(video[:, :, 0].numpy(), source[None], target[None], config, seen)
        return {
            "target": wanted.half(),
            "prior": torch.from_numpy(inputs.prior).half(),
            "hint": torch.from_numpy(inputs.hint).half(),
            "mask": torch.from_numpy(inputs.mask).half(),
            "mouth": torch.from_numpy(inputs.mouth).half(),
            **draw_state(config, self.frames, random),
            "clips": torch.tensor([chosen]),
        }
