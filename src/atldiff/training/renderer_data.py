"""Batches for the renderer: target frames of a clip and a reference frame of the same person at the same head pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights, crop, pick_reference
from atldiff.methods.atl_inputs import build_inputs
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from atldiff.config import RendererConfig

JITTER_PX = 3


class RendererSet:
    """Deterministic batches: batch `step` is a function of (seed, step), so a resumed run sees the same data."""

    def __init__(
        self, clips: list[ClipWindows], config: RendererConfig, *, clips_per_batch: int, frames: int, seed: int
    ) -> None:
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.weights = clip_weights(self.clips)
        self.config = config
        self.clips_per_batch = clips_per_batch
        self.frames = frames
        self.seed = seed

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Return the tensors of one batch, float16 on CPU.

        target, prior (B, 3, T, S, S); conditions (B, 13, T, S, S); mask, mouth (B, 1, T, S, S); clips (B,) indices.
        """
        random = np.random.default_rng((self.seed, step))
        chosen = random.choice(len(self.clips), self.clips_per_batch, p=self.weights)
        items = [self._item(self.clips[index], random) for index in chosen]
        images, source, target = (np.stack(part) for part in zip(*items, strict=True))
        images = images.astype(np.float32) / 127.5 - 1.0  # (B, 1 + T, S, S, 3): reference, then targets
        gain = random.uniform(0.8, 1.2, (len(items), 1, 1, 1, 3)) * random.uniform(0.8, 1.2, (len(items), 1, 1, 1, 1))
        offset = random.uniform(-0.15, 0.15, (len(items), 1, 1, 1, 1))
        images = np.clip(images * gain + offset, -1, 1).astype(np.float32)
        video = torch.from_numpy(images).permute(0, 4, 1, 2, 3)  # (B, 3, 1 + T, S, S)
        inputs = build_inputs(video[:, :, 0].contiguous(), source, target, self.config)
        return {
            "target": video[:, :, 1:].half(),
            "prior": inputs.prior.half(),
            "conditions": inputs.conditions.half(),
            "mask": inputs.mask.half(),
            "mouth": inputs.mouth.half(),
            "clips": torch.from_numpy(chosen),
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, clip: ClipWindows, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = int(random.integers(0, len(clip) - self.frames + 1))
        frames = np.arange(start, start + self.frames)
        reference = pick_reference(clip, start + self.frames // 2, random)
        wanted = np.concatenate([[reference], frames])
        jitter = random.integers(-JITTER_PX, JITTER_PX + 1, 2)
        geometry = WindowGeometry(self.config.side, self.config.origin)
        return crop(clip, wanted, geometry, jitter, flip=bool(random.random() < 0.5))
