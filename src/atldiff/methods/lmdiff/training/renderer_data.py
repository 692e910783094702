"""Batches for LMDiff's renderer: target frames of a clip, their landmarks, and a reference of the same person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights
from atldiff.methods.lmdiff.inputs import TOKENS, build_inputs, mirrored_tokens
from atldiff.training.draws import Draw, item_random
from atldiff.training.latent_renderer_data import FILMED, cut_video, draw_state
from atldiff.training.places import draw_place

if TYPE_CHECKING:
    from atldiff.config import TalkRendererConfig


class TalkSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(self, clips: list[ClipWindows], config: TalkRendererConfig, *, frames: int, seed: int) -> None:
        """clips: with the points `lmdiff_inputs.NEEDED`."""
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.draw = Draw(clip_weights(self.clips)) if self.clips else None
        self.tokens = {False: TOKENS, True: mirrored_tokens()}
        self.config, self.frames, self.seed = config, frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch on CPU, float16, points float32.

        target, prior, shown (B, 3, T, S, S); mask, mouth (B, 1, T, S, S); reference (B, 3, S, S); source (B, P, 2) and
        points (B, T, P, 2) window pixels; noise (B, C, T or 1, s, s); level (B,) int64, guessed (B,) bool, clips (B,).
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
        wanted, reference = video[:, :, 1:].contiguous(), video[:, :, 0].contiguous()
        seen = wanted.numpy() if random.random() < FILMED else None
        inputs = build_inputs(reference.numpy(), source[None], target[None], config, seen)
        tokens = self.tokens[place.flip]
        return {
            "target": wanted.half(),
            "prior": torch.from_numpy(inputs.prior).half(),
            "shown": torch.from_numpy(inputs.shown).half(),
            "mask": torch.from_numpy(inputs.mask).half(),
            "mouth": torch.from_numpy(inputs.mouth).half(),
            "reference": reference.half(),
            "source": torch.from_numpy(source[None, tokens]),
            "points": torch.from_numpy(target[None, :, tokens]),
            **draw_state(config, self.frames, random),
            "clips": torch.tensor([chosen]),
        }
