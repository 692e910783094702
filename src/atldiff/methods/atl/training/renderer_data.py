"""Batches for the renderer: target frames of a clip and a reference frame of the same person at the same head pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights
from atldiff.methods.atl.inputs import build_inputs
from atldiff.methods.atl.network import GUESSED, training_time
from atldiff.training.draws import Draw, item_random, stack
from atldiff.training.places import cut_windows
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from atldiff.config import RendererConfig


class RendererSet:
    """Deterministic batches: an item is a function of (seed, step, index), so a resumed run sees the same data."""

    def __init__(self, clips: list[ClipWindows], config: RendererConfig, *, frames: int, seed: int) -> None:
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.draw = Draw(clip_weights(self.clips))
        self.config = config
        self.frames = frames
        self.seed = seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch, float16 on CPU.

        target, prior (B, 3, T, S, S); conditions (B, 13, T, S, S); mask, mouth (B, 1, T, S, S); time (B,) float32,
        noise (B, 3, 1, S, S) and guessed (B,) bool of the bridge state to train at; clips (B,) indices.
        """
        drawn = stack([self._item(item_random(self.seed, step, index)) for index in items])
        video = drawn["images"].permute(0, 4, 1, 2, 3)  # (B, 3, 1 + T, S, S)
        inputs = build_inputs(video[:, :, 0].numpy(), drawn["source"].numpy(), drawn["target"].numpy(), self.config)
        return {
            "target": video[:, :, 1:].half(),
            "prior": torch.from_numpy(inputs.prior).half(),
            "conditions": torch.from_numpy(inputs.conditions).half(),
            "mask": torch.from_numpy(inputs.mask).half(),
            "mouth": torch.from_numpy(inputs.mouth).half(),
            "time": drawn["time"],
            "noise": drawn["noise"].half(),
            "guessed": drawn["guessed"],
            "clips": drawn["clip"],
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = self.draw(random)
        geometry = WindowGeometry(self.config.side, self.config.origin)
        images, source, target = cut_windows(self.clips[chosen], self.frames, geometry, random)
        side = self.config.side
        return {
            "images": images,
            "source": source,
            "target": target,
            "time": np.array(training_time(random), np.float32),
            "noise": random.standard_normal((3, 1, side, side), np.float32),
            "guessed": np.array(random.random() < GUESSED),
            "clip": np.array(chosen),
        }
